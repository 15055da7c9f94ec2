"""The polyphase filter: aliases cohere as those of photographs do; amplitudes, brightness and photographs stay."""

import functools

import pytest
import torch
from small import SIZE, photographs, upsampled

from utils.aliases import PERIODS, alias_features, aliases, shifted
from utils.fft import fourier
from utils.filters import FILTERS, apply_filter, as_unseen, check_filter, fit_filters, statistics_of
from utils.linear_filter import OPPONENT, log_amplitude, mixed
from utils.polyphase import _blocks, _from_blocks, _towards, apply_polyphase, apply_to_unseen, fit_polyphase
from utils.profiles import radial_rings, ring_means


def opponent_rings(images):
    """Mean log amplitude of opponent colours per ring, (3, R)."""
    log_spectra = log_amplitude(fourier(mixed(OPPONENT, images)))
    return ring_means(log_spectra, radial_rings(*images.shape[-2:])).mean(0)


def fitted_halves(real, fake, period=4):
    reals = statistics_of(functools.partial(real.split, 7), ["lags"], period)
    fakes = statistics_of(functools.partial(fake.split, 7), ["halved_lags"], period)
    return fit_polyphase(*reals["lags"].parts, fakes["halved_lags"].parts, fakes["opponent_mean"].mean, period)


def fitted(real, fake, period=4):
    return fitted_halves(real, fake, period)[0]


def mean_log_spectrum(images):
    return statistics_of(lambda: [images], ["mean"])["mean"].mean


def difference(real, other, period=4):
    """Mean square over features of the difference of their means."""
    return (alias_features(real, period).mean(0) - alias_features(other, period).mean(0)).square().mean()


def test_what_upsampling_left_is_taken_out_of_other_fakes():
    real, fake, others = photographs(60, 0), upsampled(60, 1), upsampled(60, 2)
    refined = apply_polyphase(others, fitted(real, fake))
    found, left, noise = (difference(photographs(60, 3), images) for images in (others, refined, photographs(60, 4)))
    assert found > 10 * noise
    assert left - noise < 0.15 * (found - noise)
    before, after = (mean_log_spectrum(images) for images in (others, refined))
    assert (before - after).abs().mean() < 0.1  # its part is coherence, the gain's is amplitude


def test_few_images_are_enough():
    found, left = (
        difference(photographs(60, 3), images)
        for images in (upsampled(60, 2), apply_polyphase(upsampled(60, 2), fitted(photographs(10, 0), upsampled(10, 1))))
    )
    assert left < 0.2 * found  # 0.3 where coherences of so few are not smoothed


def test_what_three_doublings_left_needs_eighths():
    fakes = [upsampled(60, seed, factor=8) for seed in (1, 2)]
    found, noise = (difference(photographs(60, 3), images, 8) for images in (fakes[1], photographs(60, 4)))
    left = [
        difference(photographs(60, 3), apply_polyphase(fakes[1], fitted(photographs(60, 0), fakes[0], period)), 8) - noise
        for period in PERIODS
    ]
    assert found > 10 * noise
    assert left[1] < 0.05 * (found - noise) and left[1] < 0.3 * left[0]


@pytest.mark.parametrize("period", PERIODS)
def test_equal_sets_leave_nothing_to_do(period):
    weights = fitted(photographs(40, 0), photographs(40, 1), period)
    others = photographs(20, 2)
    assert (apply_polyphase(others, weights) - others).square().mean().sqrt() < 2e-3


def test_a_fixed_pattern_at_an_alias_of_dc_is_not_in_every_lag():
    """It coheres with DC, which stays; a product of the two would be an impulse over frequencies."""
    fake = photographs(200, 1)
    pattern = 0.02 * (-1.0) ** (torch.arange(SIZE)[:, None] + torch.arange(SIZE))
    without, with_it = (
        statistics_of(functools.partial(x.split, 7), ["lags"])["lags"].parts[0].mean for x in (fake, fake + pattern)
    )
    assert (with_it - without).square().mean((0, 2, 3, 4)).sqrt().max() < 0.006  # of each shift; 0.011 with DC


def opposite(images):
    """At -f what was at f; of images, those turned by half a turn."""
    return images.flip((-2, -1)).roll((1, 1), (-2, -1))


def hermitian(weights, period):
    """Complex weights (..., A, H, W) as they must be for real images, from those at the opposite frequencies."""
    negatives = [aliases(period).index((-row % period, -column % period)) for row, column in aliases(period)]
    return opposite(weights)[..., negatives, :, :].conj()


@pytest.mark.parametrize("period", PERIODS)
def test_results_are_real_and_keep_their_brightness(period):
    weights = fitted(photographs(30, 0), upsampled(30, 1), period)
    complex_weights = torch.complex(*weights)
    assert torch.allclose(complex_weights, hermitian(complex_weights, period), atol=1e-4)
    fake = upsampled(5, 3)
    assert torch.allclose(apply_polyphase(fake, weights).mean((2, 3)), fake.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(("shape", "period"), [((12, 20), 4), ((16, 24), 4), ((8, 24), 8)])
def test_each_frequency_takes_of_its_aliases_what_the_weights_say(shape, period):
    weights = torch.randn(3, period**2, *shape, dtype=torch.complex64)
    weights = weights + hermitian(weights, period)
    image = torch.rand(2, 3, *shape)
    spectrum = fourier(mixed(OPPONENT, image))
    expected = sum(weights[:, number] * shifted(spectrum, shift, period) for number, shift in enumerate(aliases(period)))
    refined = apply_polyphase(image, torch.stack([weights.real, weights.imag]))
    assert torch.allclose(fourier(mixed(OPPONENT, refined)), expected, rtol=1e-4, atol=1e-3)


def test_result_does_not_depend_on_the_batch():
    weights, fake = fitted(photographs(12, 0), upsampled(12, 1)), upsampled(4, 2)
    alone = torch.cat([apply_polyphase(image[None], weights) for image in fake])
    assert torch.allclose(apply_polyphase(fake, weights), alone, atol=1e-6)


def test_each_fake_passes_what_was_fitted_without_it():
    fake = upsampled(20, 1)
    every, halves = fitted_halves(photographs(20, 0), fake)
    for side in (0, 1):
        alone = fitted(photographs(20, 0), fake[1 - side :: 2])  # but for the typical amplitudes, which all fakes tell
        own, other = ((alone - halves[place]).square().mean() for place in (side, 1 - side))
        assert own < 0.5 * other
    unseen = torch.cat(list(apply_to_unseen(fake.split(7), halves)))
    assert torch.allclose(unseen[::2], apply_polyphase(fake[::2], halves[0]), atol=1e-6)
    assert torch.allclose(unseen[1::2], apply_polyphase(fake[1::2], halves[1]), atol=1e-6)
    # a filter takes more from the fakes it was fitted on than from others
    new = upsampled(60, 2)
    taken = [
        (mean_log_spectrum(before) - mean_log_spectrum(after)).mean()
        for before, after in ((fake, apply_polyphase(fake, every)), (fake, unseen), (new, apply_polyphase(new, every)))
    ]
    assert taken[0] > 1.25 * taken[2] and abs(taken[1] - taken[2]) < 0.5 * (taken[0] - taken[2])


@pytest.mark.parametrize("count", [1, 17])
def test_the_last_batch_may_hold_one_fake(count):
    reads = [functools.partial(images.split, 16) for images in (photographs(8, 0), upsampled(count, 1))]
    assert fit_filters(*reads).keys() == FILTERS.keys()


def test_fakes_can_be_seen_as_if_they_had_not_been_fitted_on():
    """Their mean spectrum, per opponent colour and ring, is then that which the rest was fitted to."""
    real, fake = photographs(20, 0), upsampled(20, 1)
    fitted = fit_filters(lambda: real.split(7), lambda: fake.split(7), ["polyphase"])["polyphase"]
    rest = {name: fitted[name] for name in ("gain", "lifter", "joint")}
    unseen = apply_filter(torch.cat(list(apply_to_unseen(fake.split(7), fitted_halves(real, fake)[1]))), rest)
    seen = apply_filter(fake, fitted)
    wanted, before, after = (opponent_rings(images) for images in (unseen, seen, as_unseen(seen, fitted)))
    assert (wanted - before)[:, 1:].abs().max() > 0.02
    assert torch.allclose(after[:, 1:], wanted[:, 1:], atol=1e-3)
    assert torch.allclose(as_unseen(seen, fitted).mean((2, 3)), seen.mean((2, 3)), atol=1e-6)
    alone = {name: tensor for name, tensor in fitted.items() if name != "unseen"}
    assert as_unseen(seen, alone) is seen and torch.equal(apply_filter(fake, alone), seen)


def test_so_few_fakes_cannot_be_halved():
    weights, halves = fitted_halves(photographs(3, 0), upsampled(3, 1))
    assert all(torch.equal(weights, half) for half in halves)


@pytest.mark.parametrize("counts", [(40, 1), (1, 40), (1, 1)])
def test_of_one_image_nothing_is_learnt(counts):
    """It does not say how far others lie from it: taken as sure, its noise would spoil every image."""
    real, fake, others = (photographs(count, seed) for seed, count in enumerate((*counts, 10)))
    filters = fit_filters(*(functools.partial(images.split, 7) for images in (real, fake)))
    for kind in ("cepstral", "lifter", "polyphase"):
        assert (apply_filter(others, filters[kind]) - others).abs().max() < 1e-3, kind


@pytest.mark.parametrize("period", PERIODS)
def test_blocks_hold_a_frequency_and_its_aliases(period):
    field = torch.arange(3 * period * 2 * period).view(3 * period, 2 * period)
    blocks = _blocks(field, period)
    assert blocks.shape == (2, 2, period**2)  # the third row is opposite to the second
    for place, (row, column) in enumerate(aliases(period)):
        assert torch.equal(blocks[..., place], field[3 * row : 3 * row + 2, 2 * column : 2 * column + 2])


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("rows", [2, 3, 4])
def test_half_of_the_blocks_tells_the_weights(period, rows):
    weights = torch.randn(period**2, rows * period, 2 * period, dtype=torch.complex64)
    weights = weights + hermitian(weights, period)
    assert torch.allclose(_from_blocks(_blocks(weights, period), period, rows * period), weights, atol=1e-6)


@pytest.mark.parametrize("period", PERIODS)
def test_both_halves_of_the_spectrum_are_fitted_alike(period):
    """A filter fitted to images that are turned by half a turn sees the half that was not looked at."""
    real, fake = photographs(20, 0), upsampled(20, 1)
    expected = torch.complex(*fitted(real, fake, period)).conj()
    assert torch.allclose(torch.complex(*fitted(opposite(real), opposite(fake), period)), expected, atol=1e-3)


@pytest.mark.parametrize("contrast", [1.0, 1e4])
def test_transport_gives_the_wanted_covariance(contrast):
    def coherence():
        sides = torch.randn(3, 2, 2, 16, 40, dtype=torch.complex128)
        matrices = sides @ sides.mH
        scale = matrices.diagonal(dim1=-2, dim2=-1).real.rsqrt()
        return scale[..., None] * matrices * scale[..., None, :]

    fake, wanted = coherence(), coherence()
    amplitude = contrast ** torch.rand(3, 2, 2, 16, dtype=torch.float64)
    matrices = _towards(fake, wanted, amplitude) * amplitude[..., None, :] / amplitude[..., None]  # in units of amplitudes
    assert torch.allclose(matrices @ fake @ matrices.mH, wanted, atol=1e-6)
    same = _towards(fake, fake, amplitude)
    assert torch.allclose(same, torch.eye(16).to(same).expand_as(same), atol=1e-3)
    if contrast == 1:  # the map that changes least is Hermitian
        assert torch.allclose(matrices, matrices.mH, atol=1e-6)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        fitted(torch.rand(5, 3, 18, 16), torch.rand(5, 3, 18, 16))
    weights = fitted(photographs(8, 0), upsampled(8, 1))
    check_filter({"polyphase": weights}, SIZE)
    with pytest.raises(ValueError, match="multiples of 8"):
        fitted(torch.rand(5, 3, 20, 16), torch.rand(5, 3, 20, 16), 8)
    check_filter({"polyphase": fitted(photographs(8, 0), upsampled(8, 1), 8)}, SIZE)
    with pytest.raises(ValueError, match=r"polyphase is .* and not"):
        check_filter({"polyphase": weights[:, :, :9]}, SIZE)
    with pytest.raises(ValueError, match=r"polyphase is .* and not"):
        check_filter({"polyphase": weights}, 64)


def test_it_comes_before_gain_and_lifter():
    reads = [functools.partial(images.split, 7) for images in (photographs(20, 0), upsampled(20, 1))]
    every = fit_filters(*reads)
    assert list(every) == list(FILTERS)
    alone = fit_filters(*reads, ["polyphase"])["polyphase"]
    fake = upsampled(3, 2)
    first = apply_polyphase(fake, alone["polyphase"])
    rest = {name: tensor for name, tensor in alone.items() if name != "polyphase"}
    assert set(rest) == {"gain", "lifter", "joint", "unseen"}
    assert torch.equal(apply_filter(fake, alone), apply_filter(first, rest))
    assert torch.equal(apply_filter(fake, every["polyphase"]), apply_filter(fake, alone))
    assert not torch.equal(every["polyphase"]["gain"], every["lifter"]["gain"])  # fitted on what the first part leaves of others
    assert (fourier(first) - fourier(fake)).abs().max() > 1e-2


def test_all_that_follows_it_is_fitted_on_fakes_as_unseen():
    real, fake = photographs(8, 0), upsampled(8, 1)
    found = fit_filters(lambda: real.split(5), lambda: fake.split(5), ["polyphase"])["polyphase"]
    halves = fitted_halves(real, fake)[1]
    expected = fit_filters(lambda: real.split(5), lambda: apply_to_unseen(fake.split(5), halves), ["lifter"])["lifter"]
    assert set(expected) == {"gain", "lifter", "joint"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
