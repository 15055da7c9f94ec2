"""What the figures of the GAN studies show: their lines, bands and pictures, not how they look."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from small import photographs

from gan_commands import figures
from gan_commands.figures import loss_curves, moving, profile_bands, rate_curve, samples_before_after, truncation_curves, violins
from utils.metrics import SpectrumMean
from utils.pictures import to_uint8


@pytest.fixture
def axes_of(monkeypatch):
    """A function that draws a figure, writes nothing and returns the figure's axes."""

    def drawn(draw, *content, **more):
        kept = []
        monkeypatch.setattr(figures, "save_figure", lambda figure, path: kept.append((figure, path)))
        draw(*content, "here.png", **more)
        ((figure, path),) = kept
        plt.close(figure)
        assert path == "here.png"
        return figure.axes

    return drawn


def lines(axis):
    return [np.asarray(line.get_ydata(), float) for line in axis.lines]


def heights(collection):
    """Lowest and highest point of a band."""
    points = collection.get_paths()[0].vertices[:, 1]
    return points.min(), points.max()


def test_losses_are_shown_over_the_epochs(axes_of):
    values = {"first": [4.0, 2, 0, 1, 5, 9], "second": [1.0, 1, 2, 2, 3, 3]}
    steps = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    for axis, name in zip(axes_of(loss_curves, steps, 3, lost=3), values, strict=True):
        mean, std = moving(values[name], 3)
        assert axis.get_title().startswith(name)
        np.testing.assert_allclose(axis.lines[0].get_xdata(), np.arange(4, 10) / 3)
        np.testing.assert_allclose(axis.lines[0].get_ydata(), mean)
        assert heights(axis.collections[0]) == pytest.approx(((mean - std).min(), (mean + std).max()))


def test_rates_are_shown_against_the_untouched_generators(axes_of):
    (axis,) = axes_of(rate_curve, [0.9, 0.6, 0.4], "svm")
    assert lines(axis)[0].tolist() == [0.9, 0.6, 0.4] and set(lines(axis)[1]) == {0.9} and "svm" in axis.get_title()


def test_samples_stand_before_above_after(axes_of):
    before, after = photographs(4, 0).clamp(0, 1), torch.zeros(4, 3, 32, 32)
    axes = axes_of(samples_before_after, before, after)
    assert [axis.get_title() for axis in axes] == ["before", "mean spectrum", "after", "mean spectrum"]
    pictures = [np.asarray(axis.images[0].get_array()) for axis in axes]
    assert pictures[0].max() and not pictures[2].max()
    assert np.array_equal(pictures[0][2:34, 2:34], to_uint8(before[0]))
    spectrum = SpectrumMean()
    spectrum.update(before)
    np.testing.assert_allclose(pictures[1], spectrum.log_mag.mean(0))


def test_profiles_are_shown_with_their_difference_to_real(axes_of):
    spectra = {name: SpectrumMean() for name in ("real", "base", "other")}
    for seed, spectrum in enumerate(spectra.values()):
        spectrum.update(photographs(4, seed))
    left, right = axes_of(profile_bands, spectra)
    for number, spectrum in enumerate(spectra.values()):
        mean, std = spectrum.profile.numpy(), spectrum.profile_std.numpy()
        np.testing.assert_allclose(lines(left)[number], mean)
        np.testing.assert_allclose(lines(right)[number], mean - spectra["real"].profile.numpy(), atol=1e-12)
        assert heights(left.collections[number]) == pytest.approx(((mean - std).min(), (mean + std).max()))
    for axis in (left, right):
        assert axis.lines[0].get_color() == "black" and len({line.get_color() for line in axis.lines}) == 3


def test_each_violin_is_of_its_own_column(axes_of):
    values = {"real": np.array([[1.0, 20], [2, 50], [6, 90]]), "base": np.array([[3.0, 70], [4, 60], [9, 10]])}
    for axis, name, medians in zip(axes_of(violins, values, ("b", "tau")), ("b", "tau"), ((2, 4), (50, 60)), strict=True):
        assert axis.get_title() == name and [label.get_text() for label in axis.get_xticklabels()] == ["real", "base"]
        bars = axis.collections[-1].get_segments()
        assert [segment[0, 1] for segment in bars] == list(medians)


def test_dissimilarities_are_shown_with_the_derivative_of_one(axes_of):
    left, right = axes_of(truncation_curves, [1, 2, 4], [9.0, 6, 2], [0.3, 0.2, 0.0])
    assert lines(left)[0].tolist() == [9, 6, 2] and lines(right)[0].tolist() == [0.3, 0.2, 0]
    np.testing.assert_allclose(lines(left)[1], np.gradient([9.0, 6, 2], [1, 2, 4]))
