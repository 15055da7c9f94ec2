"""Figures of the GAN studies."""

import numpy as np
from torchvision.utils import make_grid

from utils.metrics import SpectrumMean
from utils.pictures import to_uint8
from utils.plots import legible, plt, save_figure


def moving(values, width):
    """Moving average and standard deviation over `width` values (an even one and one more), centred, cut at both ends."""
    values, half = np.asarray(values, float), width // 2
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return np.array([w.mean() for w in windows]), np.array([w.std() for w in windows])


def loss_curves(steps, per_epoch, path, lost=0):
    """Every loss over the epochs: moving average over one epoch, +- one standard deviation.

    Args:
        steps: list of dicts name -> value, one per step. per_epoch: steps per epoch. lost: steps before these.
    """
    names = list(steps[0])
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3), layout="constrained", squeeze=False)
    epochs = (lost + np.arange(1, len(steps) + 1)) / per_epoch
    for axis, name in zip(axes[0], names, strict=True):
        mean, std = moving([row[name] for row in steps], per_epoch)
        axis.plot(epochs, mean, lw=1.2, label="mean over an epoch's steps")
        axis.fill_between(epochs, mean - std, mean + std, alpha=0.25, label="and their standard deviation")
        axis.set(xlabel="epoch", ylabel="loss", title=f"{name} (unweighted)")
    axes[0, 0].legend(fontsize=7)
    save_figure(figure, path)


def rate_curve(rates, detector, path):
    """Share of fresh samples called fake per epoch against the untouched generator's, which is rates[0]."""
    figure, axis = plt.subplots(figsize=(4.4, 3), layout="constrained")
    axis.plot(range(len(rates)), rates, marker="o", ms=3, lw=1)
    axis.axhline(rates[0], color="grey", ls="--", lw=0.8, label="untouched generator")
    axis.set(xlabel="epoch", ylabel="share", title=f"samples that {detector} calls fake", ylim=(-0.03, 1.03))
    axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    save_figure(figure, path)


def samples_before_after(before, after, path):
    """Samples (N, 3, S, S) of the same latents and their mean spectra, before above after."""

    figure, axes = plt.subplots(2, 2, figsize=(8, 4.4), layout="constrained", width_ratios=(3, 1))
    for (left, right), name, images in zip(axes, ("before", "after"), (before, after), strict=True):
        left.imshow(to_uint8(make_grid(images, nrow=len(images) // 2)), interpolation="nearest")
        spectrum = SpectrumMean()
        spectrum.update(images)
        right.imshow(spectrum.log_mag.mean(0).cpu().numpy(), cmap="viridis")
        left.set_title(name, fontsize=9)
        right.set_title("mean spectrum", fontsize=9)
        for axis in (left, right):
            axis.set_axis_off()
    save_figure(figure, path)


def profile_bands(spectra, path):
    """Mean log power over frequency with a band of one standard deviation over the images, and the difference to real.

    Args:
        spectra: dict label -> `SpectrumMean`, "real" first.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    reference = spectra["real"].profile.cpu().numpy()
    for number, (label, spectrum) in enumerate(spectra.items()):
        mean, std = spectrum.profile.cpu().numpy(), spectrum.profile_std.cpu().numpy()
        colour = "black" if label == "real" else f"C{number - 1}"
        left.plot(mean, color=colour, lw=1.2, label=legible(label))
        left.fill_between(range(len(mean)), mean - std, mean + std, color=colour, alpha=0.12, lw=0)
        right.plot(mean - reference, color=colour, lw=1.2)
    left.set(xlabel="radial frequency (bins)", ylabel="mean log power", title="profile, +- one standard deviation over images")
    right.set(xlabel="radial frequency (bins)", ylabel="difference in mean log power", title="difference to real")
    left.legend(fontsize=8)
    save_figure(figure, path)


def violins(values, names, path):
    """One violin plot per column, with a bar at the median.

    Args:
        values: dict label -> (N, C). names: titles of the C columns.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), layout="constrained", squeeze=False)
    for column, (axis, name) in enumerate(zip(axes[0], names, strict=True)):
        axis.violinplot([table[:, column] for table in values.values()], showmedians=True, showextrema=False)
        axis.set_xticks(range(1, len(values) + 1), map(legible, values), rotation=30, ha="right", fontsize=8)
        axis.set(ylabel="value and median (bar)", title=name)
    save_figure(figure, path)


def truncation_curves(thresholds, frobenius, cosine, path):
    """Dissimilarity against the threshold: Frobenius with its derivative, and cosine."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(thresholds, frobenius, label="Frobenius")
    left.plot(thresholds, np.gradient(frobenius, thresholds), ls="--", label="its derivative")
    left.legend(fontsize=8)
    right.plot(thresholds, cosine, color="C2")
    left.set(xlabel="threshold t (bins)", ylabel="mean over pairs", title="2e-4 x Frobenius norm of the difference")
    right.set(xlabel="threshold t (bins)", ylabel="mean over pairs", title="1 - cosine")
    save_figure(figure, path)
