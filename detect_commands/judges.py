"""Detectors with one face, whatever is inside: fit on a split, score images, give plain content for a checkpoint."""

import functools

import numpy as np
import torch
from scipy.special import logit

from data.pairs import scene_keys
from detect_commands.image_sets import Chosen
from detect_commands.training import LabelledImages, network_logits, train_network
from models.batch_norm import share_statistics
from models.classical_detectors import CLASSICAL, NEIGHBOURS, classical_scores, fit_classical, try_state
from models.detectors import DOMAINS, SPECTRA, Detector, fake_score
from utils.detection import best_threshold, margin_score
from utils.detector_features import LOOKS_AT, classical_features
from utils.errors import UserError
from utils.fresh_detector import fold_numbers, out_of_fold
from utils.measure import batches
from utils.perturbations import PERTURBATIONS
from utils.whitening import fit_whitening

FOLDS = 5  # out-of-fold scores choose the threshold of classical detectors
TINY = 2**-53  # from probabilities so near 1 on, float64 knew no others
SMALLEST_DEVIATION = 1e-3  # of a bin of a log spectrum; rounding to 8 bit alone moves any but the zero frequency more
FEWEST = 7  # training images per class that leave five in every fold


def threshold_of(content, by_margin):
    """The threshold in a detector's checkpoint, as a `margin_score` if scores are such now: in earlier ones it is a probability."""
    threshold = float(content["threshold"])
    if not by_margin or "score" in content:
        return threshold
    return float(margin_score(logit(np.clip(threshold, TINY, 1 - TINY))))


class ClassicalJudge:
    """A detector on features.

    Args:
        classifier: one of CLASSICAL.
        size: side of the images.
        corners: logreg only, as `log_profile`.
        seed: of the folds and the mlp's start.
    """

    def __init__(self, classifier, size, corners, seed=0):
        self.classifier, self.size, self.corners, self.seed = classifier, size, corners, seed
        self.threshold, self.state = 0.5, None

    def _features(self, image_set, indices, perturbation="none"):
        key = (LOOKS_AT[self.classifier], self.corners)
        return image_set.features(
            lambda image: classical_features(self.classifier, image, self.corners), key, indices, perturbation
        )

    def fit(self, real, fake, split):
        """Fit on the training and validation parts together; the threshold comes from out-of-fold scores.

        Args:
            real, fake: image sets.
            split: dict side -> dict part -> indices; at least FEWEST to train on in each class.
        """
        sides, paths = [], []
        for side, images in (("real", real), ("fake", fake)):
            chosen = np.sort(np.concatenate([split[side]["train"], split[side]["validation"]]))
            sides.append(self._features(images, chosen))
            paths.append(images.images.paths.take(chosen))

        def fit(real, fake):
            return functools.partial(classical_scores, self.classifier, fit_classical(self.classifier, real, fake, self.seed))

        folds = fold_numbers(scene_keys(*paths), FOLDS, self.seed)
        if min(len(side) - np.bincount(side).max() for side in folds) < NEIGHBOURS:
            raise UserError(f"too many images of {real.folder} or {fake.folder} go by one name in different formats; add others")
        self.threshold = best_threshold(*out_of_fold(fit, sides, folds))
        self.state = fit_classical(self.classifier, *sides, self.seed)

    def scores(self, image_set, indices, perturbation="none"):
        """(N,) in [0, 1], higher = more likely fake."""
        return classical_scores(self.classifier, self.state, self._features(image_set, indices, perturbation))

    def scores_of(self, image):
        """The same of a batch: (N, 3, S, S) in [0, 1], on any device, -> (N,)."""
        return classical_scores(self.classifier, self.state, classical_features(self.classifier, image, self.corners).cpu().numpy())

    def content(self):
        """Plain values and tensors for a checkpoint."""
        return {"threshold": self.threshold, "score": "margin", "state": self.state}

    def load(self, content):
        """Undo `content`; any error if a part is missing or does not fit."""
        self.threshold = threshold_of(content, self.classifier not in ("knn", "svm", "mlp"))
        try_state(self.classifier, content["state"], self.size, self.corners)
        self.state = content["state"]


class NetworkJudge:
    """cnn, cnn_whitened, vit or resnet50.

    Args:
        classifier, size, domain, pretrained: as `models.detectors.Detector`.
        processes: `Processes` that share its work; it lives on their device, and all stay alike.
        plan: `TrainingPlan`. folder: where training logs and keeps its progress. Without them it scores batches, and no more.
        origin: as `train_network`.
    """

    def __init__(self, classifier, size, domain, pretrained, processes, plan=None, folder=None, origin=None):
        self.network = Detector(classifier, size, domain, pretrained).to(processes.device)
        share_statistics(self.network, processes)
        self.processes, self.plan, self.folder, self.origin = processes, plan, folder, origin
        self.threshold, self.best_epoch = 0.5, -1

    def fit(self, real, fake, split):
        """Whiten if the network wants it, train, keep the best epoch and choose the threshold on the validation part."""
        train = LabelledImages(real.images, split["real"]["train"], fake.images, split["fake"]["train"], self.plan)
        validation = LabelledImages(real.images, split["real"]["validation"], fake.images, split["fake"]["validation"])
        if self.network.whitening is not None:
            images = batches(train.unlabelled(), "spectra for whitening", "cpu", 1, self.plan.num_workers)
            fitted = self.processes.once(lambda: fit_whitening(images, SPECTRA[self.network.domain], SMALLEST_DEVIATION))
            self.network.whitening.copy_(fitted)
        self.best_epoch = train_network(self.network, train, validation, self.plan, self.folder, self.processes, self.origin)
        sides = (("real", real), ("fake", fake))
        self.threshold = best_threshold(*(self.scores(images, split[side]["validation"]) for side, images in sides))

    def scores(self, image_set, indices, perturbation="none"):
        """(N,) in [0, 1], higher = more likely fake."""
        images, plan = Chosen(image_set.images, indices, PERTURBATIONS[perturbation]), self.plan
        title = f"judging {image_set.label}"
        logits = network_logits(self.network, images, title, plan.batch_size, self.processes, plan.num_workers)
        return fake_score(logits).numpy()

    @torch.no_grad()
    def scores_of(self, image):
        """The same of a batch: (N, 3, S, S) in [0, 1], on any device, -> (N,)."""
        return fake_score(self.network.eval()(image.to(self.processes.device))).cpu().numpy()

    def content(self):
        """Plain values and tensors for a checkpoint."""
        state = {name: value.cpu() for name, value in self.network.state_dict().items()}
        return {"threshold": self.threshold, "score": "margin", "best_epoch": self.best_epoch, "state": state}

    def load(self, content):
        """Undo `content`; any error if a part is missing or does not fit."""
        self.threshold, self.best_epoch = threshold_of(content, True), int(content["best_epoch"])
        self.network.load_state_dict(content["state"])


def domains(classifier):
    """What a classifier can look at; the first is its default."""
    return ("spectrum",) if classifier in CLASSICAL else DOMAINS[classifier]


def saved_judge(content, processes):
    """The detector of a checkpoint, to score batches of images of the size in its identity.

    Args:
        content: what `Bench.fit` saved.
        processes: `Processes`; the detector lives on their device.
    Raises: any error if a part is missing or does not fit.
    """
    classifier, size, domain, corners = (content["identity"][name] for name in ("classifier", "size", "domain", "profile_corners"))
    if classifier in CLASSICAL:
        judge = ClassicalJudge(classifier, size, corners)
    else:
        judge = NetworkJudge(classifier, size, domain, None, processes)
    judge.load(content)
    return judge
