"""Numbers against closed forms, other implementations and hand-made examples."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import linalg, ndimage

from utils.errors import UserError
from utils.feature_metrics import Moments, frechet_distance, kernel_distance
from utils.measure import batches
from utils.metrics import FOLDS, SpectrumFolds, SpectrumMean, first_half, fold_of, lfd, profile_gap, psnr, spectral_distances, ssim

SAMPLES = Path(__file__).parents[2] / "shared" / "data"


def images(count=5, size=32, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def mean_of(image):
    mean = SpectrumMean()
    mean.update(image)
    return mean


class Fixed:
    """Stands for a SpectrumMean with a given mean."""

    def __init__(self, log_mag):
        self.log_mag = torch.tensor(log_mag, dtype=torch.float64)


def test_lfd_of_a_hand_made_example():
    """Differences of 16, 1 and 255 levels: in uint8 arithmetic the first would count as 0 and the last as 1."""
    real, other = Fixed([[[0, 16, 100, 255]]]), Fixed([[[0, 0, 101, 0]]])
    real.log_mag, other.log_mag = real.log_mag / 255, other.log_mag / 255
    expected = math.log1p(16**2 + 1 + 255**2)
    assert lfd(real, other) == pytest.approx(expected, rel=1e-12)
    assert lfd(other, real) == pytest.approx(expected, rel=1e-12)
    assert lfd(real, other, bits=None) == pytest.approx(expected, rel=1e-12)
    assert lfd(Fixed([[[0.4 / 255]]]), Fixed([[[0.0]]])) == 0
    assert lfd(Fixed([[[0.4 / 255]]]), Fixed([[[0.0]]]), bits=None) == pytest.approx(math.log1p(0.16))
    with pytest.raises(ValueError, match="bits"):
        lfd(real, other, bits=16)


def test_spectrum_mean_is_the_plain_mean_in_any_batches():
    image = images(7)
    magnitude = np.fft.fftshift(np.abs(np.fft.fft2(image.double().numpy())), axes=(-2, -1))
    logs = np.log1p(magnitude)
    low, high = logs.min((1, 2, 3), keepdims=True), logs.max((1, 2, 3), keepdims=True)
    expected = ((logs - low) / (high - low)).mean(0)
    whole, pieces = mean_of(image), SpectrumMean()
    for part in image.split([1, 4, 2]):
        pieces.update(part)
    for mean in (whole, pieces, mean_of(image[:3]) + mean_of(image[3:])):
        assert mean.count == 7
        np.testing.assert_allclose(mean.log_mag.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(pieces.profile, whole.profile, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(32, 32), (33, 33), (24, 32)])
def test_profile_is_the_mean_log_power_of_the_grey_image(shape):
    image = torch.rand(3, 3, *shape)
    grey = (image.double().numpy() * np.array([0.299, 0.587, 0.114])[None, :, None, None]).sum(1)
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey), axes=(-2, -1))) ** 2
    rows, columns = np.indices(shape)
    scale = min(shape) / np.array(shape)
    rings = np.floor(np.hypot((rows - shape[0] // 2) * scale[0], (columns - shape[1] // 2) * scale[1]) + 1e-9).astype(int)
    per_image = [[np.log(p[rings == r] + 255.0**-2).mean() for r in range(min(shape) // 2 + 1)] for p in power]
    mean = mean_of(image)
    np.testing.assert_allclose(mean.profile.numpy(), np.mean(per_image, 0), atol=1e-10)
    np.testing.assert_allclose(mean.profile_std.numpy(), np.std(per_image, 0), atol=1e-6)


def test_equal_images_have_no_spread():
    """A difference of equal sums may come out a little below 0, and its root would be no number."""
    std = mean_of(images(1).expand(5, -1, -1, -1)).profile_std
    assert std.numpy() == pytest.approx(np.zeros(len(std)), abs=1e-6)


def test_profile_gap_of_a_known_gain():
    """Twice the contrast is four times the power: log 4 in every ring, in the outer half as well."""
    image = images(4) * 0.5
    gap, upper = profile_gap(mean_of(image), mean_of(image * 2))
    assert gap == pytest.approx(math.log(4), abs=1e-3)
    assert upper == pytest.approx(math.log(4), abs=1e-3)
    assert profile_gap(mean_of(image), mean_of(image)) == (0, 0)


def test_profile_gap_of_a_hand_made_example():
    """Five rings: the outer half is rings 2, 3 and 4."""
    real, other = Fixed([]), Fixed([])
    real.profile, other.profile = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0]), torch.tensor([5.0, 0.0, 3.0, -1.0, 1.0])
    assert profile_gap(real, other) == pytest.approx((9 / 5, 4 / 3))


def test_exact_zeros_in_a_spectrum_stay_finite():
    distances = spectral_distances(mean_of(torch.zeros(2, 3, 16, 16)), mean_of(torch.ones(2, 3, 16, 16)))
    assert all(math.isfinite(value) for value in distances.values())


def test_errors_of_spectrum_mean():
    mean = mean_of(images(1))
    with pytest.raises(ValueError, match="averaged"):
        mean.update(images(1, size=16))
    with pytest.raises(ValueError, match="batch"):
        mean.update(images(1)[0])
    with pytest.raises(ValueError, match="no images"):
        _ = SpectrumMean().log_mag
    with pytest.raises(ValueError, match="one image size"):
        lfd(mean, mean_of(images(1, size=16)))


@given(count=st.integers(0, 1000))
def test_halves_are_even(count):
    assert len(first_half(count)) == count and abs(2 * first_half(count).sum() - count) <= 1


@settings(max_examples=20)
@given(count=st.integers(2, 40), batch=st.integers(1, 40))
def test_folds_hold_every_image_once_and_evenly(count, batch):
    image = images(count, size=8)
    folds = SpectrumFolds()
    for part in image.split(batch):
        folds.update(part)
    counts = [fold.count for fold in folds._folds]
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1
    torch.testing.assert_close(folds.total.log_mag, mean_of(image).log_mag)
    floor = folds.floor()
    assert floor["lfd_spread"][0] <= floor["lfd"] <= floor["lfd_spread"][1]


def test_floor_is_the_mean_over_all_splits():
    image = images(FOLDS * 3, size=8)
    folds = SpectrumFolds()
    folds.update(image)
    place = torch.tensor([fold_of(index) for index in range(len(image))])
    values = []
    for number in range(2**FOLDS):
        first = [fold for fold in range(FOLDS) if number >> fold & 1]
        if len(first) == FOLDS // 2:
            member = torch.isin(place, torch.tensor(first))
            values.append(spectral_distances(mean_of(image[member]), mean_of(image[~member]))["lfd"])
    assert folds.floor()["lfd"] == pytest.approx(np.mean(values), rel=1e-9)
    assert folds.floor()["lfd_spread"] == pytest.approx([min(values), max(values)], rel=1e-9)
    with pytest.raises(ValueError, match="two images"):
        SpectrumFolds().floor()


def test_psnr_closed_form():
    first = torch.full((2, 3, 16, 16), 0.5)
    second = first + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(first, second), torch.tensor([20.0, 40.0], dtype=torch.float64), rtol=0, atol=1e-4)
    assert psnr(first, first).isinf().all()


def test_ssim_against_scipy_filters():
    first, second = images(2, size=24), images(2, size=24, seed=1)

    def blur(array):  # truncate 3.5 * sigma 1.5 = 5 taps either side
        return ndimage.gaussian_filter(array, 1.5, truncate=3.5)[5:-5, 5:-5]

    expected = []
    for x, y in zip(first.double().numpy(), second.double().numpy(), strict=True):
        values = []
        for a, b in zip(x, y, strict=True):
            ma, mb = blur(a), blur(b)
            va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
            values.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
        expected.append(np.mean(values))
    np.testing.assert_allclose(ssim(first, second).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(ssim(first, first).numpy(), 1, rtol=1e-12)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(first[..., :10], second[..., :10])


def test_frechet_distance_of_commuting_covariances():
    """Diagonal covariances: |m|^2 + sum (sqrt a - sqrt b)^2; one of them singular."""
    a, b = np.array([4.0, 1.0, 0.0]), np.array([1.0, 9.0, 4.0])
    shift = np.array([1.0, -2.0, 0.5])
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(shift, np.diag(a), np.zeros(3), np.diag(b)) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance([3.0], [[4.0]], [0.0], [[1.0]]) == pytest.approx(10)
    assert frechet_distance([1.0, 0.0], np.zeros((2, 2)), [0.0, 0.0], np.eye(2)) == pytest.approx(3)


@settings(max_examples=25)
@given(size=st.integers(2, 12), seed=st.integers(0, 1000))
def test_frechet_distance_of_other_covariances(size, seed):
    """Against scipy's general matrix square root; symmetric; a common shift and rotation do not matter."""
    generator = np.random.default_rng(seed)
    roots = generator.normal(size=(2, size, size))
    first, second = (root @ root.T for root in roots)
    means = generator.normal(size=(2, size))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    found = frechet_distance(means[0], first, means[1], second)
    assert found == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(means[1], second, means[0], first) == pytest.approx(found, rel=1e-7)
    turn = np.linalg.qr(generator.normal(size=(size, size)))[0]
    moved = [turn @ mean + 5 for mean in means]
    assert frechet_distance(moved[0], turn @ first @ turn.T, moved[1], turn @ second @ turn.T) == pytest.approx(found, rel=1e-7)


def test_frechet_distance_of_a_translation_and_of_few_vectors():
    """Fewer vectors than dimensions: the covariances are singular and the distance is still exact."""
    features = np.random.default_rng(0).normal(size=(20, 64))
    moments, moved = Moments(), Moments()
    moments.update(features)
    moved.update(features + 0.5)
    distance = moments.frechet_distance(moved)
    assert distance == pytest.approx(64 * 0.25, rel=1e-9)
    assert moments.frechet_distance(moments) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(np.zeros(2), np.eye(2) * np.nan, np.zeros(2), np.eye(2))


def test_moments_in_any_batches():
    features = np.random.default_rng(1).normal(size=(50, 5)) + 1e4
    moments, other = Moments(), Moments()
    for start in range(0, 30, 7):
        moments.update(features[start : min(start + 7, 30)])
    other.update(features[30:])
    both = moments + other
    assert both.count == 50
    np.testing.assert_allclose(both.mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(both.covariance, np.cov(features, rowvar=False), atol=1e-9)
    with pytest.raises(ValueError, match="two vectors"):
        _ = Moments().covariance


def test_kernel_distance_by_hand():
    """All vectors drawn (two of two at least): the estimator written out."""
    first, second = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [2.0, 0.0]])

    def k(x, y):
        return (x @ y / 2 + 1) ** 3

    cross = np.mean([k(x, y) for x in first for y in second])
    expected = k(*first) + k(*second) - 2 * cross
    assert kernel_distance(first, second, subsets=3)[0] == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    """Over many draws of one distribution its mean is 0 within three standard errors; a shift is far outside."""
    generator = np.random.default_rng(0)
    same = [kernel_distance(*generator.normal(size=(2, 40, 8)), subsets=20)[0] for _ in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(len(same))
    shifted, spread = kernel_distance(generator.normal(size=(60, 8)), generator.normal(size=(50, 8)) + 1)
    assert shifted > 5 * np.std(same)
    assert 0 < spread < shifted
    few = generator.normal(size=(2, 9, 3))
    assert kernel_distance(*few, seed=1) == kernel_distance(*few, seed=1) != kernel_distance(*few, seed=2)
    with pytest.raises(ValueError, match="KID"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))


@pytest.mark.skipif(not (SAMPLES / "pix2pix_map2sat").is_dir(), reason="optional sample images are not there")
def test_measured_numbers_of_sample_images():
    """Second half of 50 fakes against reals, and the reals' halves: LFD 16.09 and 15.12, upper gap 0.44 and 0.16."""

    def mean(kind, places):
        spectrum = SpectrumMean()
        paths = sorted((SAMPLES / "pix2pix_map2sat" / kind).glob("*.png"))
        for path in paths[places]:
            with Image.open(path) as image:
                spectrum.update(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255)
        return spectrum

    first, second, fake = mean("real", slice(25)), mean("real", slice(25, 50)), mean("fake", slice(25, 50))
    found, floor = spectral_distances(second, fake), spectral_distances(first, second)
    assert (round(found["lfd"], 2), round(floor["lfd"], 2)) == (16.09, 15.12)
    assert (round(found["gap_upper"], 2), round(floor["gap_upper"], 2)) == (0.44, 0.16)


def test_lfd_rounds_each_mean_and_not_their_difference():
    """0.4 and 0.6 levels are levels 0 and 1, though they differ by 0.2."""
    assert lfd(Fixed([[[0.4 / 255]]]), Fixed([[[0.6 / 255]]])) == pytest.approx(math.log(2))


def test_parts_are_dealt_anew_in_each_block():
    """Images that recur every two or eight files (crops of one picture, say) do not all go to one part."""
    places = [fold_of(index) for index in range(64 * FOLDS)]
    assert all(sorted(places[start : start + FOLDS]) == list(range(FOLDS)) for start in range(0, len(places), FOLDS))
    assert all(set(places[start::FOLDS]) == set(range(FOLDS)) for start in range(FOLDS))
    assert all(0.3 < first_half(len(places))[start::2].mean() < 0.7 for start in (0, 1))


def test_kernel_distance_in_blocks_of_rows(monkeypatch):
    first, second = np.random.default_rng(0).normal(size=(2, 13, 3))
    whole = kernel_distance(first, second)
    monkeypatch.setattr("utils.feature_metrics.KERNEL_ROWS", 4)
    assert kernel_distance(first, second) == pytest.approx(whole, rel=1e-9)


def test_images_exchanged_for_others_of_another_size_are_told():
    images = [torch.rand(3, 16, 16), torch.rand(3, 16, 16), torch.rand(3, 8, 8)]
    with pytest.raises(UserError, match="spectra of x: an image is of another size than when it was checked"):
        list(batches(images, "spectra of x", "cpu"))
    assert len(list(batches(images[:2], "spectra of x", "cpu"))) == 1


def test_the_gap_looks_at_the_high_frequencies_of_both_sides():
    """A band of horizontal frequencies, from 0.3 of the sampling rate to a half, in images of any shape."""
    for shape in ((32, 32), (32, 64), (64, 32)):
        image = torch.rand(4, 3, *shape)
        spectrum = torch.fft.rfft2(image)
        spectrum[..., int(0.3 * shape[1]) :] *= 10
        gap, upper = profile_gap(mean_of(image), mean_of(torch.fft.irfft2(spectrum, s=shape)))
        assert upper > 1.5 and gap > 0.7, shape
