"""Detectors trained on one generator's fakes and asked about others': the classical ones, and those that detect.py saved."""

import numpy as np

from data.pairs import joined_name, version_key
from detect_commands.judges import saved_judge
from models.classical_detectors import classical_scores, fit_classical
from utils.checkpoint import fitting, load_checkpoint
from utils.detector_features import classical_features
from utils.distributed import Processes
from utils.errors import UserError

BORDER = 0.5  # scores above it are called fake


def features_of(classifier, batches):
    """Rows (N, F) of a classifier's features over batches of images (N, 3, S, S) in [0, 1]."""
    return np.concatenate([classical_features(classifier, image, corners=True).cpu().numpy() for image in batches])


def training_rows(count, fraction):
    """How many of `count` rows train a detector: this share of them, at least five."""
    return max(5, round(fraction * count))


class SplitDetector:
    """A detector trained on some rows of one real and one fake feature table; the other rows of both are left to judge it.

    Args:
        classifier: one of CLASSICAL.
        real, fake: (N, F), (M, F).
        fraction: share of each that trains, as `training_rows`.
        seed: of the split, drawn without replacement, and of the classifier.
    """

    def __init__(self, classifier, real, fake, fraction, seed):
        rng = np.random.default_rng(seed)
        real, fake = (table[rng.permutation(len(table))] for table in (real, fake))
        cuts = [training_rows(len(table), fraction) for table in (real, fake)]
        self.classifier = classifier
        self.state = fit_classical(classifier, real[: cuts[0]], fake[: cuts[1]], seed)
        self.unseen_real, self.unseen_fake = real[cuts[0] :], fake[cuts[1] :]

    def called_fake(self, features):
        """Share of rows (N, F) that are called fake."""
        return float((classical_scores(self.classifier, self.state, features) > BORDER).mean())


class SavedDetector:
    """A detector that detect.py trained, read from its checkpoint.

    Args:
        path: results/<dst>/<classifier>_classifier/run_00/detector.pt.
        size: side of the images it is to judge.
        device: where a network runs.
    Raises: UserError if it is no such file, or was trained on another size.
    """

    def __init__(self, path, size, device):
        content = load_checkpoint(path, "detector")
        with fitting(path):
            trained = content["identity"]["size"]
            if trained != size:
                raise UserError(f"--detector {path} judges images of {trained} px, not of {size} px; give another")
            self.judge = saved_judge(content, Processes(device))
            names = [name for part in ("train", "validation") for name in content["names"]["real"][part]]
            self._known = {key(name) for name in names for key in (version_key, joined_name)}

    def unseen(self, names):
        """Indices of the reals, by name, that the detector was not trained on under this name, in whatever version or folder."""
        return [i for i, name in enumerate(names) if self._known.isdisjoint((version_key(name), joined_name(name)))]

    def called_fake(self, batches):
        """Share of the images in batches (N, 3, S, S) that are called fake."""
        return float((np.concatenate([self.judge.scores_of(image) for image in batches]) > BORDER).mean())
