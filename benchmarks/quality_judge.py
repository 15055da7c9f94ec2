"""The judge of the quality benchmark: images in, numbers out. It knows nothing of where images come from or go to."""

import functools

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.quality_data import scene, strata
from models.classical_detectors import classical_scores, fit_classical
from models.detectors import SPECTRA, PaperCNN
from utils.detector_features import classical_features
from utils.feature_metrics import Moments, kernel_distance
from utils.fft import fourier
from utils.fresh_detector import cross_validated
from utils.intervals import balanced_interval
from utils.metrics import GREY_LEVEL, PSNR_CEILING, TITLES, SpectrumMean, psnr, spectral_distances, ssim

COLUMNS = {
    "lfd_8bit": TITLES["lfd_8bit"],
    "lfd": TITLES["lfd"],
    "mean_gap": "mean spectrum",
    "gap": TITLES["gap"],
    "gap_upper": TITLES["gap_upper"],
    "spread": "spread",
    "logreg": "fresh logreg",
    "knn": "fresh knn",
    "coherence": "fresh coherence",
    "coherence8": "fresh coherence8",
    "cnn": "fresh rgb cnn",
    "cnn_opponent": "fresh opponent cnn",
    "seen_logreg": "fakes' logreg",
    "seen_knn": "fakes' knn",
    "seen_coherence": "fakes' coherence",
    "seen_coherence8": "fakes' coherence8",
    "seen_cnn": "fakes' rgb cnn",
    "seen_cnn_opponent": "fakes' opponent cnn",
    "kid_inception": "KID",
    "fid_inception": "FID",
    "kid_imagenet": "KID, ImageNet",
    "kid_imagenet_mag": "KID, ImageNet, magnitudes",
    "psnr": TITLES["psnr"],
    "ssim": TITLES["ssim"],
    "psnr_identity": "PSNR of a real (dB)",
    "psnr_as_fake": "PSNR of a real as fake (dB)",
}
LEGEND = (
    "LFD, mean spectrum (mean over channels and bins of the absolute difference of the mean log power), gaps (the same of the grey "
    "profile) and spread (mean over rings of the absolute difference of the profile's standard deviation over images): lower is "
    "better. Fresh: balanced accuracy of a detector trained to tell the row from the judged reals, cross-validated over scenes, "
    "with a 95 % interval; fakes': of one trained on reals and unrefined fakes of the part that refiners are fitted on. 0.5 is "
    "chance, lower is better. Floor: other reals in place of the row; they show other scenes, so a row that shows those of the "
    "judged reals may lie below it."
)
FOLDS, REPEATS = 5, {"logreg": 4, "knn": 4, "coherence": 4, "coherence8": 4, "cnn": 1, "cnn_opponent": 1}
EPOCHS, RATE, BATCH = 15, 1e-3, 16  # of the small CNN (Adam)


def fit_on_features(classifier, real, other, seed):
    """A classical detector: features (N, F), (M, F) of reals and fakes -> function (K, F) -> (K,) bool, called fake."""
    state = fit_classical(classifier, real, other, seed)
    return lambda features: classical_scores(classifier, state, features) > 0.5


def fit_cnn(real, other, seed):
    """The same for the paper's CNN on log spectra (N, 3, S, S), each bin standardised over the training images.

    Standardising lets a few hundred steps do: otherwise the decay with frequency, common to all images, is learnt first.
    """
    mags = torch.from_numpy(np.concatenate([real, other]))
    is_fake = torch.cat([torch.zeros(len(real)), torch.ones(len(other))]).long()  # place of a logit, not that of a `Detector`'s
    mean, std = mags.mean(0), mags.std(0).clamp_min(1e-6)

    def prepare(mags):
        return ((mags - mean) / std).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU

    mags, weight = prepare(mags), len(is_fake) / (2 * torch.bincount(is_fake).float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PaperCNN(mags.shape[-1]).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), RATE)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(is_fake)).split(BATCH):
                loss = cross_entropy(network(mags[chosen]), is_fake[chosen], weight=weight)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    @torch.no_grad()
    def called_fake(features):
        return torch.cat([network(prepare(part)).argmax(1) for part in torch.from_numpy(features).split(BATCH)]).numpy() == 1

    return called_fake


CLASSICAL, CNNS = ("logreg", "knn", "coherence"), ("cnn", "cnn_opponent")
DETECTORS = {  # name -> what it looks at (function of a batch), how it is fitted
    name: (functools.partial(classical_features, name, corners=True), functools.partial(fit_on_features, name))
    for name in (*CLASSICAL, "coherence8")
} | {
    "cnn": (SPECTRA["spectrum"], fit_cnn),
    "cnn_opponent": (SPECTRA["opponent"], fit_cnn),
}


class JudgedImages:
    """What judging needs of one set of images, computed once.

    Args:
        images: `quality_data.Images`.
        detectors: names of DETECTORS whose features are wanted.
        networks: {name: function (N, 3, H, W) -> (N, D) features}.
    """

    def __init__(self, images, detectors, networks):
        self.scenes, self.pixels = [scene(name) for name in images.names], images.pixels
        self.spectrum, log_power = SpectrumMean(), 0.0
        features, deep = {name: [] for name in detectors}, {name: [] for name in networks}
        for part in images.pixels.split(BATCH):
            self.spectrum.update(part)
            log_power = log_power + (fourier(part.double()).abs().square() + GREY_LEVEL**2).log().sum(0)
            for name in detectors:
                features[name].append(DETECTORS[name][0](part).numpy())
            for name, network in networks.items():
                deep[name].append(network(part))
        self.log_power = log_power / len(images)  # (3, H, W)
        self.features = {name: np.concatenate(parts) for name, parts in features.items()}
        self.deep = {name: np.concatenate(parts) for name, parts in deep.items()}


def fold_of_scenes(real_scenes, other_scenes, folds, seed):
    """Fold of every image of both classes; a scene that both show is in one fold, and every fold has its share of each class."""
    generator, fold = np.random.default_rng(seed), {}
    both, *own = strata(real_scenes, other_scenes)
    for keys, first in ((both, 0), *((keys, len(both)) for keys in own)):  # own scenes go on dealing where the shared ones end
        numbers = generator.permutation(len(keys)) + first
        fold |= dict(zip(keys, (numbers % folds).tolist(), strict=True))
    return [np.array([fold[key] for key in keys]) for keys in (real_scenes, other_scenes)]


def fresh_accuracy(detector, real, other):
    """Balanced accuracy, low and high of a fresh detector that tells `other` from `real` (`JudgedImages`), by cross-validation."""
    deals = [fold_of_scenes(real.scenes, other.scenes, FOLDS, repeat) for repeat in range(REPEATS[detector])]
    return cross_validated(DETECTORS[detector][1], [real.features[detector], other.features[detector]], deals)


class Judge:
    """Judges rows against the reals of one case: the same images give the same numbers, in whatever order rows come.

    Args:
        case: `quality_data.Case`.
        detectors: names of DETECTORS.
        networks: as `JudgedImages`; each gives a KID, in a column kid_<name>, and "inception" an FID.
    """

    def __init__(self, case, detectors=CLASSICAL + CNNS, networks=None):
        self.detectors, self.networks = detectors, networks or {}
        self.case, self.fake_pixels, self.real = case, case.fake.pixels, self._measure(case.real)
        sides = [self._measure(images) for images in (case.fit_real, case.fit_fake)]
        self.seen = {name: DETECTORS[name][1](*(side.features[name] for side in sides), 0) for name in self.detectors}

    def _measure(self, images):
        return JudgedImages(images, self.detectors, self.networks)

    def __call__(self, row, refined=False):
        """Numbers of one row.

        Args:
            row: `Images`, 8-bit values. refined: they are the case's fakes, refined, in their order: PSNR and SSIM are wanted.
        Returns: dict over COLUMNS as far as they apply, and `<detector>_interval` = [low, high]; also `profile`, `profile_std` and
            `real_...`, lists over rings, for figures.
        """
        real, other = self.real, self._measure(row)
        numbers = spectral_distances(real.spectrum, other.spectrum)
        numbers["mean_gap"] = float((real.log_power - other.log_power).abs().mean())
        numbers["spread"] = float((real.spectrum.profile_std - other.spectrum.profile_std).abs().mean())
        for name in self.detectors:
            numbers[name], *numbers[f"{name}_interval"] = fresh_accuracy(name, real, other)
            rates = [(self.seen[name](m.features[name]) == is_fake).mean() for is_fake, m in ((False, real), (True, other))]
            accuracy, *interval = balanced_interval(rates, [len(real.scenes), len(other.scenes)])
            numbers |= {f"seen_{name}": accuracy, f"seen_{name}_interval": interval}
        for name in self.networks:
            numbers |= feature_distances(name, real.deep[name], other.deep[name])
        if refined:
            numbers["psnr"] = mean_psnr(row.pixels, self.fake_pixels)
            numbers["ssim"] = float(ssim(row.pixels, self.fake_pixels).mean())
        for prefix, spectrum in (("", other.spectrum), ("real_", real.spectrum)):
            numbers |= {f"{prefix}profile": spectrum.profile.tolist(), f"{prefix}profile_std": spectrum.profile_std.tolist()}
        return numbers

    def floor(self):
        """Numbers of as many photographs as fakes, of those that are fitted on; not by detectors of fakes, which know them."""
        numbers = self(self.case.fit_real.take(len(self.case.fake)))
        return {name: value for name, value in numbers.items() if not name.startswith("seen_")}


def mean_psnr(images, others):
    """Mean over images of the PSNR in dB, PSNR_CEILING for equal ones."""
    return float(psnr(images, others).clamp_max(PSNR_CEILING).mean())


def feature_distances(name, real, other):
    """KID of a network's features (N, D), (M, D); of Inception's the FID, too."""
    distances = {f"kid_{name}": kernel_distance(real, other)[0]}
    if name == "inception":
        distances["fid_inception"] = Moments.of(real).frechet_distance(Moments.of(other))
    return distances
