"""What gives the classes away without any look at the spectrum: format, bits, JPEG quality, size; traces of JPEG in the pixels."""

from collections import Counter

import numpy as np

from data.checking import column
from data.jpeg_trace import sampled, traces

UNLIKE = 0.2  # difference of shares of the classes' images that is told: of a format, or of images without colour
LEAST_TRACE = 0.03  # difference of the classes' mean traces of JPEG that is told
TAIL = "whatever tells the classes apart may be this and not the spectrum (docs/detectors.md)"


def _spread(real, fake):
    """Mean distance of two samples' quantiles, and how much of it chance explains (three standard errors of the mean)."""
    grid = np.linspace(0, 1, 21)
    distance = np.abs(np.quantile(real, grid) - np.quantile(fake, grid)).mean()
    return distance, 3 * np.sqrt(np.var(real) / len(real) + np.var(fake) / len(fake))


def _tally(values):
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common(3))


def compare_files(real_infos, fake_infos):
    """Differences between the classes' files.

    Args:
        real_infos, fake_infos: non-empty `ImageTable`s.
    Returns: list of sentences, empty if format, bits per value, JPEG quality and size agree.
    """
    found = []
    both = (real_infos, fake_infos)
    shares = [Counter(column(infos, "format").tolist()) for infos in both]
    names = sorted(shares[0] | shares[1])
    distance = sum(abs(shares[0][name] / len(real_infos) - shares[1][name] / len(fake_infos)) for name in names) / 2
    if distance >= UNLIKE:
        formats = [_tally(column(infos, "format").tolist()) for infos in both]
        found.append(f"file formats differ between the classes (real: {formats[0]}; fake: {formats[1]}): {TAIL}")
    depths = [column(infos, "bits") for infos in both]
    if abs(np.mean(depths[0] > 8) - np.mean(depths[1] > 8)) >= UNLIKE:
        bits = [_tally(f"{value} bit:" for value in depth.tolist()) for depth in depths]
        found.append(
            f"bits per value differ between the classes (real: {bits[0]}; fake: {bits[1]}), and rounding to 8 bit is noise that a "
            f"detector of spectra sees; bring both to one depth: {TAIL}"
        )
    qualities = [values[values > 0].astype(int) for values in (column(infos, "jpeg_quality") for infos in both)]
    if all(map(len, qualities)):
        distance, chance = _spread(*qualities)
        if distance > max(2, chance):
            real, fake = (int(np.median(values)) for values in qualities)
            found.append(f"JPEG quality differs between the classes (median: real {real}, fake {fake}): {TAIL}")
    for side in ("width", "height"):
        distance, chance = _spread(*(np.log(column(infos, side)) for infos in both))
        if distance > max(0.02, chance):
            sides = [zip(column(infos, "width").tolist(), column(infos, "height").tolist(), strict=True) for infos in both]
            sizes = [_tally(f"{width} x {height}:" for width, height in pairs) for pairs in sides]
            found.append(f"image sizes differ between the classes (real {sizes[0]}; fake {sizes[1]}): {TAIL}")
            break
    return found


def compare_traces(real, fake):
    """A sentence in a list if the classes' colours tell that only one of them was JPEG compressed; else an empty list.

    Args:
        real, fake: `ImageFolder`s; they are read, so damage that only decoding shows is a UserError here.
    """
    both = [traces(images) for images in (real, fake)]
    if min(map(len, both)) < 2:
        return []
    means = [found.mean() for found in both]
    chance = 3 * np.sqrt(sum(found.var(ddof=1) / len(found) for found in both))
    if abs(means[0] - means[1]) <= max(LEAST_TRACE, chance):
        return []
    more, less = ("real", "fake") if means[0] > means[1] else ("fake", "real")
    ranked = np.mean(both[0][:, None] > both[1]) + np.mean(both[0][:, None] == both[1]) / 2
    return [
        f"colours that JPEG decoding gives are more frequent in {more} images than in {less} ones ({max(means):+.2f} and "
        f"{min(means):+.2f}, 0 is chance): {more} images were JPEGs once, or more lately. This alone ranks "
        f"{max(ranked, 1 - ranked):.0%} of pairs rightly: {TAIL}"
    ]


def compare_colours(real, fake):
    """A sentence in a list if one of two `ImageFolder`s holds more images without colour than the other; else an empty list."""
    grey = [np.mean([not np.ptp(array, axis=-1).any() for array in sampled(images)]) for images in (real, fake)]
    if abs(grey[0] - grey[1]) < UNLIKE:
        return []
    return [f"images without colour: {grey[0]:.0%} of the real ones, {grey[1]:.0%} of the fakes: {TAIL}"]


def class_differences(real, fake):
    """Sentences on what gives the label away without any look at the spectrum: those of the functions above.

    Args:
        real, fake: (`ImageFolder`, its `ImageInfo`s), as `data.folder.load_folder` returns them.
    """
    return compare_files(real[1], fake[1]) + compare_traces(real[0], fake[0]) + compare_colours(real[0], fake[0])
