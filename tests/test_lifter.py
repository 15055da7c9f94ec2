"""The lifter: images vary around their mean spectrum as photographs do; nothing else changes."""

import functools
import math

import pytest
import torch
from small import SIZE, photographs

from utils.fft import cepstrum, fourier, from_cepstrum, inverse_fourier
from utils.filters import FILTERS, apply_filter, check_filter, fit_filters, statistics_of
from utils.lifter import JOINT, NEAR_QUEFRENCIES, Deviations, apply_lifter, fit_lifter, quefrency_groups
from utils.linear_filter import OPPONENT, RGB, high_band, log_amplitude, mixed


def varied(count, seed, deviation):
    """`photographs` whose log spectra get a ripple of quefrency (2, 0) and of random strength with this deviation."""
    generator = torch.Generator().manual_seed(seed + 100)
    ripple = torch.zeros(SIZE, SIZE)
    ripple[2, 0] = ripple[-2, 0] = SIZE
    strength = deviation * torch.randn(count, 1, 1, 1, generator=generator)
    return inverse_fourier(fourier(photographs(count, seed)) * (strength * from_cepstrum(ripple)).exp()).real


def fitted(real, fake):
    reals, fakes = (statistics_of(functools.partial(images.split, 7), ["deviations"]) for images in (real, fake))
    return fit_lifter(reals["deviations"], fakes["deviations"], fakes["opponent_mean"].mean)


def energy(images, row, column):
    """Mean logarithm of the energy of the grey deviation at one quefrency."""
    log_spectrum = fourier(images).abs().clamp_min(1e-3).log().mean(1)
    return cepstrum(log_spectrum - log_spectrum.mean(0))[:, row, column].square().log().mean()


def test_a_ripple_that_varies_too_little_is_made_to_vary():
    real, fake, others = varied(60, 0, 0.3), varied(60, 1, 0.06), varied(60, 2, 0.06)
    refined = apply_lifter(others, **fitted(real, fake))
    assert energy(real, 2, 0) - energy(others, 2, 0) > 2
    assert abs(energy(real, 2, 0) - energy(refined, 2, 0)) < 0.7
    assert abs(energy(others, 0, 2) - energy(refined, 0, 2)) < 1  # the other direction has its own factor


def test_equal_sets_leave_nothing_to_do():
    real, fake = photographs(40, 0), photographs(40, 1)
    assert (apply_lifter(fake, **fitted(real, fake)) - fake).square().mean().sqrt() < 1e-3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_on_one_side_are_not_taken_for_images_that_vary_less(count):
    """Images deviate from their own mean by (n - 1) / n of their energy: noise of one kind must get factors near 1."""
    generator = torch.Generator().manual_seed(5)
    noise = [0.5 + 0.1 * torch.randn(number, 3, SIZE, SIZE, generator=generator) for number in (80, count, 20)]
    for real, fake in (noise[:2], noise[1::-1]):
        lifter = fitted(real, fake)
        refined = apply_lifter(noise[2], **lifter)
        assert (refined - noise[2]).square().mean().sqrt() < 0.05 * noise[2].std()


def test_phases_and_brightness_stay():
    fake = varied(60, 1, 0.1)
    refined = apply_lifter(fake, **fitted(varied(60, 0, 0.5), fake))
    before, after = (fourier(mixed(OPPONENT, image)) for image in (fake, refined))
    assert torch.allclose(refined.mean((2, 3)), fake.mean((2, 3)), atol=1e-5)
    strong = before.abs() > 0.1
    turned = torch.polar(torch.ones(()), after.angle() - before.angle())
    assert (turned - 1).abs()[strong].max() < 1e-2
    assert (refined - fake).abs().max() > 5e-3


def test_low_frequencies_stay():
    band = high_band(SIZE, SIZE)
    assert band[SIZE // 2, SIZE // 2] == 0 and band[SIZE // 2, 0] == 1 and band[SIZE // 2, SIZE // 2 + 4] == 0.5
    fake = varied(20, 1, 0.1)
    refined = apply_lifter(fake, **fitted(varied(20, 0, 0.5), fake))
    moved = (fourier(refined).abs() / fourier(fake).abs().clamp_min(1e-3)).log().abs().mean((0, 1))
    near, far = moved[SIZE // 2, SIZE // 2 + 1 : SIZE // 2 + 3].mean(), moved[SIZE // 2, :4].mean()
    assert near < 0.3 * far


def test_result_does_not_depend_on_the_batch():
    real, fake = varied(12, 0, 0.5), varied(12, 1, 0.1)
    lifter = fitted(real, fake)
    alone = torch.cat([apply_lifter(image[None], **lifter) for image in fake])
    assert torch.allclose(apply_lifter(fake, **lifter), alone, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (15, 16)])
def test_groups_of_quefrencies(shape):
    groups = quefrency_groups(*shape)
    assert groups.min() == 0 and len(groups.unique()) == groups.max() + 1
    assert torch.equal(groups, groups.flip((0, 1)).roll((1, 1), (0, 1)))  # point symmetry keeps images real
    assert groups[5, 0] == groups[0, 5] != groups[3, 0]
    near = {(row, column) for row in range(-2, 3) for column in range(-2, 3)} - {(2, 2), (2, -2), (-2, 2), (-2, -2)}
    assert all(groups[place] == 0 for place in near) and (groups == 0).sum() == len(near) == 2 * len(NEAR_QUEFRENCIES) - 1


def test_an_image_of_one_colour_stays_finite():
    lifter = fitted(varied(12, 0, 0.5), varied(12, 1, 0.1))
    flat = torch.full((1, 3, SIZE, SIZE), 0.25)
    assert torch.allclose(apply_lifter(flat, **lifter), flat, atol=0.01)


def test_filters_are_fitted_together_or_alone():
    real, fake = (functools.partial(varied(12, seed, 0.2).split, 5) for seed in (0, 1))
    every = fit_filters(real, fake)
    assert list(every) == list(FILTERS)
    assert torch.equal(every["cepstral"]["gain"], every["lifter"]["gain"])
    assert not torch.equal(every["linear"]["gain"], every["lifter"]["gain"])
    alone = fit_filters(real, fake, ["lifter"])
    assert list(alone) == ["lifter"]
    image = varied(2, 3, 0.2)
    assert torch.equal(apply_filter(image, alone["lifter"]), apply_filter(image, every["lifter"]))
    assert torch.equal(apply_filter(image, {}), image)


PASSES = {("linear",): (2, 2), ("cepstral",): (2, 3), ("lifter",): (3, 5), ("polyphase",): (3, 8), tuple(FILTERS): (3, 11)}


@pytest.mark.parametrize("kinds", PASSES, ids="-".join)
def test_images_are_read_no_more_often_than_they_must_be(kinds):
    """Once for which images have colours; then, whatever kinds are fitted, the reals once for their means and spectra, and once for
    what is measured against the means.
    """
    passes = [0, 0]

    def read(side):
        passes[side] += 1
        return photographs(6, side).split(4)

    fit_filters(*(functools.partial(read, side) for side in (0, 1)), kinds)
    assert tuple(passes) == PASSES[kinds]


def test_nothing_is_measured_that_was_not_asked_for():
    def found(*wanted):
        return set(statistics_of(lambda: [photographs(2, 0)], wanted))

    assert found("mean") == {"mean"}
    assert found("even_spectrum", "deviations") == {"even_spectrum", "opponent_mean", "deviations"}
    assert found("opponent_spectrum", "halved_lags") == {"opponent_spectrum", "opponent_mean", "halved_lags"}


def test_a_factor_stretches_what_its_colour_deviates_by():
    image = photographs(3, 0)
    spectrum = fourier(mixed(OPPONENT, image))
    mean = spectrum.abs().log().mean(0)
    factors = torch.ones(3, SIZE, SIZE)
    factors[1, 3:-2] = 1.5
    no_joint = torch.cat([torch.eye(JOINT), torch.full((1, JOINT), 1e9)])
    refined = fourier(mixed(OPPONENT, apply_lifter(image, torch.stack([mean, factors]), no_joint)))
    deviation = (spectrum.abs().log() - mean)[:, 1]
    deviation[:, SIZE // 2, SIZE // 2] = 0
    kept = torch.zeros(SIZE, SIZE)
    kept[3:-2] = 0.5
    expected = high_band(SIZE, SIZE) * from_cepstrum(kept * cepstrum(deviation))
    change = refined.abs().log() - spectrum.abs().log()
    strong = spectrum.abs() > 0.1
    assert torch.allclose(change[:, 1][strong[:, 1]], expected[strong[:, 1]], atol=1e-2)
    assert change[:, 0][strong[:, 0]].abs().max() < 1e-2 and change[:, 2][strong[:, 2]].abs().max() < 1e-2
    assert change[:, 1].std() > 0.05


def rippled(count, seed, together):
    """Images with ripples in each opponent colour, as strong in one as in another if they come `together`."""
    rows, columns = torch.tensor(NEAR_QUEFRENCIES).T
    strength = 2 * torch.randn(count, 3, len(rows), generator=torch.Generator().manual_seed(seed))
    ripples = torch.zeros(count, 3, SIZE, SIZE)
    ripples[..., rows, columns] = ripples[..., -rows, -columns] = strength[:, :1].expand(-1, 3, -1) if together else strength
    spectrum = fourier(mixed(OPPONENT, photographs(count, seed)))
    return mixed(RGB, inverse_fourier(spectrum * from_cepstrum(ripples).exp()).real)


def test_what_varies_together_in_photographs_is_made_to():
    """Ripples that are as strong in one colour as in another, in reals, and have nothing to do with each other in fakes."""

    def together(images):
        values = cepstrum(log_amplitude(fourier(mixed(OPPONENT, images))))[:, :2, 2, 0]
        return torch.corrcoef(values.T)[0, 1]

    lifter = fitted(rippled(100, 0, True), rippled(100, 1, False))
    others = rippled(100, 2, False)
    assert together(rippled(100, 3, True)) > 0.9 and abs(together(others)) < 0.3
    assert together(apply_lifter(others, **lifter)) > 0.5


def test_what_varies_together_on_both_sides_is_left():
    matrix = fitted(rippled(40, 0, True), rippled(40, 1, True))["joint"][:-1]
    torch.testing.assert_close(matrix, matrix.diag().diag(), rtol=0, atol=0.03)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_images_do_not_tell_what_varies_together(count):
    matrix = fitted(photographs(count, 0), photographs(count, 1))["joint"][:-1]
    assert torch.allclose(matrix, matrix.diag().diag(), atol=0.1)
    assert ((matrix.diag() - 1).abs() > 0.1).float().mean() < 0.3  # two images deviate from their mean alike: no certainty


def test_near_quefrencies_have_no_factor_beside_the_joint_matrix():
    lifter = fitted(varied(60, 0, 0.3), varied(60, 1, 0.06))
    assert lifter["joint"][:-1].diag().max() > 2
    for sign in (1, -1):
        assert all((lifter["lifter"][1][:, sign * row, sign * column] == 1).all() for row, column in NEAR_QUEFRENCIES)


def test_half_a_lifter_is_refused():
    lifter = fitted(photographs(4, 0), photographs(4, 1))
    check_filter(lifter, SIZE)
    with pytest.raises(ValueError, match="half of a lifter"):
        check_filter({"lifter": lifter["lifter"]}, SIZE)


def test_images_far_out_are_moved_like_those_at_the_limit():
    real, fake = varied(60, 0, 0.3), varied(60, 1, 0.06)
    lifter = fitted(real, fake)
    limit = lifter["joint"][-1, NEAR_QUEFRENCIES.index((2, 0))]
    deviations = statistics_of(lambda: [fake], ["deviations"])["deviations"]
    torch.testing.assert_close(lifter["joint"][-1], 3 * deviations.deviation.float())
    wild = [varied(1, 5, 0) for _ in range(2)]
    ripple = torch.zeros(SIZE, SIZE)
    ripple[2, 0] = ripple[-2, 0] = 1
    moved = []
    for image, strength in zip(wild, (3, 6), strict=True):
        image = inverse_fourier(fourier(image) * (strength * limit * from_cepstrum(ripple)).exp()).real
        before, after = (cepstrum(fourier(each).abs().log())[0, 0, 2, 0] for each in (image, apply_lifter(image, **lifter)))
        moved.append(after - before)
    assert moved[0] > limit and abs(moved[0] - moved[1]) < 0.1 * moved[0]


def deviations_of(field, monkeypatch):
    """`Deviations` of images with these deviations in the cepstrum, (N, 3, H, W)."""
    monkeypatch.setattr("utils.lifter._deviation_cepstrum", lambda spectrum, mean: field)
    found = Deviations(torch.zeros(field.shape[1:]))
    found.update(torch.zeros(field.shape))
    return found


def test_deviations_of_gaussian_coefficients_are_found(monkeypatch):
    """And how sure they are: of those with a reflection, which is another coefficient, twice as sure."""
    field = torch.randn(3000, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()
    field = (field + field.flip(2, 3).roll((1, 1), (2, 3))) / 2**0.5  # as a cepstrum: equal at mirrored quefrencies
    field[..., 0, 0] /= 2**0.5  # its own mirror image
    field[:, 1, 2, 1] *= 3
    field[:, 1, 2, -1] *= 3
    found = deviations_of(field, monkeypatch)
    places = {place: number for number, place in enumerate(NEAR_QUEFRENCIES)}
    expected = torch.ones(3, len(places)).double()
    expected[1, [places[2, 1], places[2, -1]]] = 3
    torch.testing.assert_close(found.deviation, expected.flatten(), rtol=0.05, atol=0)
    value, variance = found.log_variances()
    torch.testing.assert_close(value, 2 * found.deviation.log() - math.log(2999 / 3000))
    once = 4 * (math.pi / 2 - 1) / 3000
    expected = torch.tensor([once / (1 + (row > 0 and column != 0)) for row, column in NEAR_QUEFRENCIES]).double().repeat(3)
    torch.testing.assert_close(variance, expected, rtol=0.15, atol=0)
    assert (variance > 0.999 * expected).all()
    value, variance = found.log_energies()
    freedom = (torch.bincount(quefrency_groups(SIZE, SIZE).flatten()) / 2)[1:].double()
    torch.testing.assert_close(value[0, 1:], torch.digamma(freedom / 2) - (freedom / 2).log(), rtol=0, atol=0.05)
    expected = torch.polygamma(1, freedom / 2) / 3000
    torch.testing.assert_close(variance[0, 1:], expected, rtol=0.15, atol=0)
    assert (variance[0, 1:] > 0.999 * expected).all()


def test_a_quefrency_that_is_measured_alone_has_one_degree_of_freedom(monkeypatch):
    """Of 20 x 20 pixels that farthest out is its own mirror image, and the only one of its half-octave."""
    assert quefrency_groups(20, 20).flatten().bincount()[-1] == 1
    field = torch.randn(500, 3, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    _, variance = deviations_of(field, monkeypatch).log_energies()
    torch.testing.assert_close(variance[:, -1], torch.polygamma(1, torch.full((3,), 0.5).double()) / 500, rtol=0.3, atol=0)


def test_of_images_that_vary_by_different_amounts_less_is_sure(monkeypatch):
    field = torch.tensor([1.0, 99.0]).double().repeat(50)[:, None, None, None].expand(-1, 3, SIZE, SIZE)
    _, variance = deviations_of(field, monkeypatch).log_variances()
    torch.testing.assert_close(variance, torch.full((JOINT,), 4 * (49 / 50) ** 2 / 99).double())  # sizes are 50 +- 49


def test_brightness_is_no_deviation():
    image = photographs(4, 0).double()
    mean = statistics_of(lambda: [image], ["opponent_mean"])["opponent_mean"].mean
    dark, light = Deviations(mean), Deviations(mean)
    dark.update(image)
    light.update(image + 0.4)
    torch.testing.assert_close(torch.cat(light.near), torch.cat(dark.near))


def test_what_is_seen_in_a_mirror_deviates_alike():
    reals = Deviations(statistics_of(lambda: [varied(30, 0, 0.3)], ["opponent_mean"])["opponent_mean"].mean)
    reals.update(varied(30, 0, 0.3))
    deviation = reals.deviation.view(3, -1)
    for place, (row, column) in enumerate(NEAR_QUEFRENCIES):
        if row and column:
            assert torch.equal(deviation[:, place], deviation[:, NEAR_QUEFRENCIES.index((row, -column))])
    assert len(deviation[0].unique()) == 8


def test_a_wild_image_moves_the_deviation_less_than_the_root_mean_square():
    images = varied(40, 0, 0.1)
    wild = varied(1, 3, 8)
    mean = statistics_of(lambda: [images], ["opponent_mean"])["opponent_mean"].mean

    def deviations(batch):
        found = Deviations(mean)
        found.update(batch)
        place = NEAR_QUEFRENCIES.index((2, 0))
        return found.deviation[place], torch.cat(found.near)[:, place].square().mean().sqrt()

    (robust, plain), (robust_wild, plain_wild) = deviations(images), deviations(torch.cat([images, wild]))
    assert plain_wild > 2 * plain and robust_wild / robust < 0.8 * plain_wild / plain


def test_a_wild_image_does_not_make_everything_vary_together(monkeypatch):
    field = torch.randn(300, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()
    field[0] = 50
    found = deviations_of(field, monkeypatch)
    assert (found.correlation() - torch.eye(JOINT)).abs().max() < 0.4
