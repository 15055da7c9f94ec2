"""The linear filters: a known gain is undone, noise is not applied, colours cohere again."""

import functools
from types import SimpleNamespace

import pytest
import torch
from small import SIZE, photographs, smooth_gain_with_peaks

import train
from utils import filter_fitting
from utils.fft import apply_gain, cepstrum, fourier, mirror
from utils.filters import filtered, fit_filters, statistics_of
from utils.linear_filter import OPPONENT, _trust_rings, _without_noise, diagonal_gain, spectrum_of
from utils.moments import RunningMoments
from utils.profiles import half_octaves, radial_rings

KINDS = ("linear", "cepstral")


def fitted(kind, real, fake):
    return fit_filters(*(functools.partial(images.split, 7) for images in (real, fake)), [kind])[kind]["gain"]


def diagonal(gain):
    return gain.diagonal(dim1=0, dim2=1).movedim(-1, 0).log()  # (3, H, W)


def test_moments_of_two_parts_are_those_of_all():
    values = torch.randn(9, 4, dtype=torch.float64)
    parts = [RunningMoments() for _ in range(4)]
    parts[0].update(values)
    for number, value in enumerate(values):
        parts[1 + (number > 5)].update(value[None])
    for total in (parts[1] + parts[2], parts[0] + parts[3]):  # the last has none
        assert total.count == 9
        assert torch.allclose(total.mean, values.mean(0))
        assert torch.allclose(total.variance_of_mean, values.var(0) / 9)


def test_plain_filter_removes_a_known_gain():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(40, 3, 16, 16, generator=generator)
    gain = (1 + torch.rand(3, 16, 16, generator=generator)).log()
    gain = (gain + gain.flip((-2, -1)).roll((1, 1), (-2, -1))) / 2  # as that of a real filter: equal at opposite frequencies
    found = diagonal(fitted("linear", real, apply_gain(real, diagonal_gain(gain))))
    gain[:, 8, 8] = 0
    assert torch.allclose(found, -gain, atol=1e-3)
    assert (found[:, 8, 8] == 0).all()


def test_cepstral_filter_removes_smooth_gain_and_peaks_without_noise():
    real, fake, gain = photographs(30, 0), photographs(30, 1), smooth_gain_with_peaks()
    fake = apply_gain(fake, diagonal_gain(gain))
    plain, cepstral = (diagonal(fitted(kind, real, fake)) for kind in KINDS)
    error, plain_error = (found + gain for found in (cepstral, plain))
    assert error.square().mean().sqrt() < 0.5 * plain_error.square().mean().sqrt()
    assert error[:, ::8, ::8].abs().max() < 0.75  # half of a peak


def test_cepstral_filter_of_equal_sets_hardly_changes_an_image():
    real, fake = photographs(30, 0), photographs(30, 1)
    changes = {kind: (apply_gain(fake, fitted(kind, real, fake)) - fake).square().mean() for kind in KINDS}
    assert changes["cepstral"] < 0.1 * changes["linear"]


def test_a_colour_cast_is_no_reason_for_another_gain():
    """It is at DC, which stays; an impulse there would be in every quefrency, and what is noise would seem to be none."""
    real, fake = photographs(30, 0), photographs(30, 1)
    gain, cast = (fitted("cepstral", real, images) for images in (fake, fake + torch.tensor([0.3, 0.0, -0.3])[:, None, None]))
    assert torch.allclose(gain, cast, atol=1e-3)


def test_low_frequencies_stay_unless_they_move_beyond_doubt():
    low = radial_rings(SIZE, SIZE) < SIZE // 8
    changes = []
    for seed in range(0, 12, 2):  # each image has a level of its own, so that means of rings differ by chance
        levels = torch.exp(0.3 * torch.randn(2, 20, 1, 1, 1, generator=torch.Generator().manual_seed(seed)))
        real, fake = (0.5 + level * (photographs(20, seed + i) - 0.5) for i, level in enumerate(levels))
        changes.append([diagonal(fitted(kind, real, fake))[:, low].abs().mean() for kind in KINDS])
    plain, cepstral = torch.tensor(changes).mean(0)
    assert cepstral < 0.25 * plain
    moved = torch.where(low, 1.0, 0.0).expand(3, -1, -1)
    found = diagonal(fitted("cepstral", photographs(30, 0), apply_gain(photographs(30, 1), diagonal_gain(moved))))
    assert -found[:, low].mean() > 0.8


def test_cepstral_filter_repairs_the_coherence_of_colours():
    real, fake = photographs(60, 0), photographs(60, 1, shade=4.0)

    def coherence(image):
        red, green = fourier(image)[:, :2, : SIZE // 4].unbind(1)  # far from DC
        return (red * green.conj()).mean().real / (red.abs().square().mean() * green.abs().square().mean()).sqrt()

    after = {kind: coherence(apply_gain(fake, fitted(kind, real, fake))) for kind in KINDS}
    assert coherence(fake) < 0.5 < 0.9 < coherence(real)
    assert after["linear"] < 0.5  # one gain a channel cannot
    assert after["cepstral"] == pytest.approx(coherence(real).item(), abs=0.03)


def test_filtered_images_are_real_and_their_mean_stays():
    real, fake = photographs(10, 0), photographs(10, 1, shade=3.0)
    gain = fitted("cepstral", real, fake)
    assert torch.allclose(gain, gain.flip((-2, -1)).roll((1, 1), (-2, -1)), atol=1e-5)
    assert torch.allclose(apply_gain(fake, gain).mean((2, 3)), fake.mean((2, 3)), atol=1e-5)


def test_order_and_batches_of_images_do_not_matter():
    real, fake = photographs(9, 0), photographs(9, 1)
    once = fit_filters(lambda: [real], lambda: [fake], ["cepstral"])["cepstral"]["gain"]
    assert torch.allclose(once, fitted("cepstral", real.flip(0), fake.flip(0)), atol=1e-5)


def test_log_spectrum_is_the_mean_and_its_variance():
    images = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logs = fourier(images.double()).abs().log()
    assert torch.allclose(statistics_of(lambda: images.split(4), ["mean"])["mean"].mean, logs.mean(0), atol=1e-3)
    spectrum = spectrum_of(images.split(4))
    logs[..., 4, 4] = 0  # DC: it would be in every quefrency
    assert torch.allclose((spectrum.even.bins.mean + spectrum.odd.bins.mean), logs.mean(0), atol=1e-3)
    even = (logs + mirror(logs)) / 2
    assert torch.allclose(spectrum.even.bins.variance_of_mean, even.var(0) / 9, rtol=1e-2, atol=1e-4)


def test_opponent_colours_are_orthonormal():
    assert torch.allclose(OPPONENT @ OPPONENT.T, torch.eye(3), atol=1e-6)


def test_half_octaves():
    assert half_octaves(8, 8)[0].tolist() == [0, 2, 4, 5, 6, 5, 4, 2]
    assert half_octaves(8, 8)[1, 1] == 3


def test_unknown_kind_is_refused():
    with pytest.raises(KeyError, match="shrunk"):
        fitted("shrunk", photographs(2, 0), photographs(2, 1))


def test_filters_of_many_images_are_fitted_on_some_of_them(monkeypatch):
    monkeypatch.setattr(filter_fitting, "FITTING_IMAGES", 4)

    def read(count, side):
        images = [torch.full((3, side, side), float(number)) for number in range(count)]
        return torch.cat(list(filter_fitting.fitting_batches(images, "", "cpu")))[:, 0, 0, 0].tolist()

    assert read(10, 128) == read(10, 256) == [0, 2, 5, 7] and read(3, 128) == [0, 1, 2]
    assert read(20, 64) == [int(1.25 * number) for number in range(16)]  # four times as many of a quarter of the pixels


def test_fakes_are_made_unseen_only_if_most_were_seen(monkeypatch):
    """The polyphase filter takes more from those that it was fitted on; of many, it was fitted on some."""
    options = SimpleNamespace(period=4, num_workers=0, whiten=False)
    monkeypatch.setattr(filter_fitting, "FITTING_IMAGES", 1)  # 16 of 32 x 32 pixels
    for count, keeps in ((16, True), (32, True), (33, False)):
        sides = {f"train_{side}": list(photographs(count, seed)) for seed, side in enumerate(("real", "fake"))}
        filters, _ = train.fit_spectra(sides, options, torch.device("cpu"))
        assert ("unseen" in filters["polyphase"]) == keeps


def test_what_only_fakes_have_on_one_diagonal_is_undone():
    slant = torch.zeros(3, SIZE, SIZE)
    slant[:, 2:15, 2:15] = 1  # frequencies along one diagonal and their opposites
    slant[:, 18:31, 18:31] = 1
    real, fake = photographs(60, 0), apply_gain(photographs(60, 1), diagonal_gain(slant))
    found = diagonal(fitted("cepstral", real, fake))
    assert torch.allclose(found[:, 18:31, 18:31].mean(), torch.tensor(-1.0), atol=0.1)
    assert mirror(found)[:, 18:31, 18:31].mean().abs() < 0.1


def test_how_far_a_bin_and_a_ring_must_stand_out():
    """Nine and four times their variance; what is kept grows from there."""
    one = torch.ones(1, SIZE, SIZE, dtype=torch.float64)
    for square, kept in ((8, 0), (12, 0.25)):
        bins = 0 * one
        bins[0, 5, 7] = square**0.5
        assert torch.allclose(_without_noise((bins, one), (cepstrum(bins), one)), kept * bins)
    ring = torch.ones(1, int(radial_rings(SIZE, SIZE).max()) + 1)
    for square, kept in ((3, 0), (8, 0.5)):
        real, fake = (SimpleNamespace(mean=mean * ring, variance_of_mean=0.5 * ring) for mean in (square**0.5, 0))
        assert _trust_rings(real, fake, SIZE, SIZE)[0, SIZE // 2, SIZE // 2].item() == pytest.approx(kept)


def test_red_green_and_blue_are_each_moved_to_their_own_means():
    far = radial_rings(SIZE, SIZE) >= SIZE // 4
    change = far * torch.tensor([-0.7, 0.0, 0.7])[:, None, None]
    real, fake = photographs(40, 0), apply_gain(photographs(40, 1), diagonal_gain(change))
    refined = apply_gain(fake, fitted("cepstral", real, fake))
    wanted, before, after = (fourier(images).abs().log().mean(0)[:, far].mean(1) for images in (real, fake, refined))
    assert (before - wanted).abs().max() > 0.6 and (after - wanted).abs().max() < 0.05


@pytest.mark.parametrize("side", ["real", "fake"])
def test_images_without_colour_move_no_other_s(side):
    sides = {"real": photographs(30, 1), "fake": photographs(30, 2)}
    fitted = fit_filters(*(functools.partial(image.split, 8) for image in sides.values()))
    grey, blank = photographs(4, 3).mean(1, keepdim=True).expand(-1, 3, -1, -1), torch.zeros(1, 3, SIZE, SIZE)
    tinted = torch.tensor([0.9, 0.5, 0.2]).view(1, 3, 1, 1).expand_as(blank)
    toned = grey[:1] + torch.tensor([0, 1, 2]).view(1, 3, 1, 1) / 255 * (grey[:1] > 0.5)
    sides[side] = torch.cat([grey[:2], sides[side], grey[2:], toned, blank, tinted])
    again = fit_filters(*(functools.partial(image.split, 8) for image in sides.values()))
    for kind, parts in fitted.items():
        for name, tensor in parts.items():
            torch.testing.assert_close(again[kind][name], tensor, rtol=1e-4, atol=1e-4, msg=f"{kind}, {name}")


def test_where_most_images_have_no_colour_all_are_fitted_on_but_blank_ones():
    sides = [photographs(12, seed).mean(1, keepdim=True).repeat(1, 3, 1, 1) for seed in (1, 2)]
    sides[0][:3] = photographs(3, 4)
    fitted = fit_filters(*(functools.partial(image.split, 8) for image in sides), ["linear"])["linear"]
    sides[1] = torch.cat([sides[1], torch.ones(2, 3, SIZE, SIZE)])
    again = fit_filters(*(functools.partial(image.split, 8) for image in sides), ["linear"])["linear"]
    torch.testing.assert_close(again["gain"], fitted["gain"])
    means = [statistics_of(functools.partial(image.split, 8), ["mean"])["mean"].mean for image in (sides[0], sides[1][:12])]
    expected = (means[0] - means[1]).exp().float()
    expected[:, SIZE // 2, SIZE // 2] = 1
    torch.testing.assert_close(again["gain"].diagonal().movedim(-1, 0), expected)


def test_a_filter_fitted_on_copies_is_finite():
    """They differ by nothing, and no factor makes them differ as photographs do."""
    real, fake, other = photographs(20, 1), photographs(1, 2).repeat(2, 1, 1, 1), photographs(5, 3)
    for fitted in fit_filters(lambda: [real], lambda: [fake]).values():
        assert filtered(other, fitted).isfinite().all()
