"""Pictures of images, spectra and profiles, written as PNG.

All modules that draw have `plt` from here, where it is set up: neither the environment nor the user's matplotlibrc counts.
"""

import os

os.environ.pop("MPLBACKEND", None)  # a notebook's is known to the notebook alone
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image

from utils.fft import normalised_log_mag
from utils.files import atomic_path
from utils.pictures import to_uint8

matplotlib.rcdefaults()
plt.switch_backend("Agg")
plt.rcParams["text.parse_math"] = False  # names of folders may hold dollar signs
COLOURS = {
    "real": "black",
    "fake": "tab:red",
    "refined": "tab:blue",
    "linear": "tab:orange",
    "cepstral": "tab:green",
    "lifter": "tab:olive",
    "polyphase": "tab:purple",
}


def legible(name):
    """A name of a file as a figure shows it: without bytes that are no text, and without what would keep it from legends."""
    shown = name.encode(errors="backslashreplace").decode()
    return f" {shown}" if shown.startswith("_") else shown


def _texts(artist):
    """All texts within an artist but those of ticks, which take long to make."""
    if isinstance(artist, Text):
        yield artist
    for child in [artist.label] if isinstance(artist, Axis) else artist.get_children():
        yield from _texts(child)


def save_figure(figure, path):
    """Write a matplotlib figure as PNG atomically, close it, and return it as (H, W, 3) uint8.

    Its texts may be names of files, of any bytes; those of ticks must be `legible` already.
    """
    for text in _texts(figure):
        text.set_text(legible(text.get_text()))
    figure.set_dpi(100)
    figure.canvas.draw()  # once; `savefig` draws a figure with a layout twice
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return picture


def _show(axis, picture, title, **options):
    shown = axis.imshow(picture, **options)
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=[])  # they would be made and placed though nobody sees them
    axis.set_axis_off()
    return shown


def _key(figure, shown, axis):
    """The scale of a map, as a bar of its colours below it."""
    bar = figure.colorbar(shown, ax=axis, location="bottom", fraction=0.05, pad=0.02, aspect=40)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(5)
    bar.set_label("log magnitude, each image's scaled to 0..1", fontsize=7)


def sample_figure(images, path):
    """One example each, image above its log-magnitude spectrum.

    Args:
        images: dict name -> (3, H, W) in [0, 1].
    Returns: the picture, (H, W, 3) uint8.
    """
    figure, axes = plt.subplots(2, len(images), figsize=(2.4 * len(images), 5), layout="constrained", squeeze=False)
    for (name, image), (above, below) in zip(images.items(), axes.T, strict=True):
        _show(above, to_uint8(image), name)
        mag = normalised_log_mag(image[None].float().cpu())[0].mean(0)
        _show(below, mag.numpy(), f"spectrum of {name}", cmap="viridis", vmin=-1, vmax=0.6)
    return save_figure(figure, path)


def spectra_figure(spectra, path):
    """Mean spectra above their difference to real.

    Args:
        spectra: dict name -> (3, H, W), mean log-magnitudes in [0, 1]; must hold "real".
    Returns: the picture, (H, W, 3) uint8.
    """
    grey = {name: spectrum.mean(0).cpu().numpy() for name, spectrum in spectra.items()}
    differences = {name: spectrum - grey["real"] for name, spectrum in grey.items() if name != "real"}
    limit = max(float(np.quantile(np.abs(list(differences.values())), 0.999)), 1e-6)
    low = min(float(spectrum.min()) for spectrum in grey.values())
    high = max(float(np.quantile(grey["real"], 0.999)), low + 1e-6)  # images of one colour have a flat spectrum
    figure, axes = plt.subplots(2, len(grey), figsize=(2.6 * len(grey), 5.4), layout="constrained", squeeze=False)
    for name, (above, below) in zip(grey, axes.T, strict=True):
        mean = _show(above, grey[name], f"mean spectrum: {name}", cmap="viridis", vmin=low, vmax=high)
        if name == "real":
            below.set_axis_off()
        else:
            shown = _show(below, differences[name], f"{name} minus real", cmap="RdBu_r", vmin=-limit, vmax=limit)
            _key(figure, shown, below)
        _key(figure, mean, above)
    return save_figure(figure, path)


def profile_figure(profiles, path):
    """Mean log power over frequency, and its difference to real.

    Args:
        profiles: dict name -> (R,), mean log power per radial ring; must hold "real".
    Returns: the picture, (H, W, 3) uint8.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.2), layout="constrained")
    real = profiles["real"].cpu().numpy()
    for name, profile in profiles.items():
        values = profile.cpu().numpy()
        left.plot(values, label=name, color=COLOURS.get(name), lw=1.2)
        right.plot(values - real, color=COLOURS.get(name), lw=1.2)
    left.set(xlabel="radial frequency (bins)", ylabel="mean log power", title="profile")
    right.set(xlabel="radial frequency (bins)", ylabel="difference to real", title="profile minus real")
    figure.legend(loc="outside right upper", fontsize=8)
    return save_figure(figure, path)


def overview_figure(images, spectra, profiles, path):
    """The whole story in one picture: an example, its spectrum, the mean spectra's difference to real and the profiles.

    Args:
        images: dict "fake", "refined", "real" -> (3, H, W) in [0, 1].
        spectra: dict of the same names -> (3, H, W) mean log-magnitudes.
        profiles: dict of names -> (R,).
    Returns: the picture, (H, W, 3) uint8.
    """
    figure = plt.figure(figsize=(10, 7.4), layout="constrained")
    above, below = figure.subfigures(2, 1)
    for axis, name in zip(above.subplots(1, 3), ("fake", "refined", "real"), strict=True):
        _show(axis, to_uint8(images[name]), name, interpolation="nearest")
    maps, curves = below.subfigures(1, 2, width_ratios=(2, 1))
    differences = {name: (spectra[name] - spectra["real"]).mean(0).cpu().numpy() for name in ("fake", "refined")}
    limit = max(float(np.quantile(np.abs(differences["fake"]), 0.999)), 1e-6)
    for axis, (name, difference) in zip(maps.subplots(1, 2), differences.items(), strict=True):
        title = f"mean spectrum: {name} minus real"
        _key(maps, _show(axis, difference, title, cmap="RdBu_r", vmin=-limit, vmax=limit), axis)
    axis = curves.subplots()
    for name, profile in profiles.items():
        difference = (profile - profiles["real"]).cpu().numpy()
        axis.plot(difference, label=name, color=COLOURS.get(name), lw=1.6 if name in images else 0.8)
    axis.set_xlabel("radial frequency (bins)", fontsize=9)
    axis.set_title("mean log power minus real", fontsize=9)
    curves.legend(fontsize=8, ncols=3, loc="outside lower center", frameon=False)
    return save_figure(figure, path)
