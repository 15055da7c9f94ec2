"""Classical detectors in the laboratory's protocol: trained on one generator's fakes, asked about others'."""

import numpy as np

from models.classical_detectors import classical_features, classical_scores, fit_classical

BORDER = 0.5  # scores above it are called fake


def features_of(classifier, batches):
    """Rows (N, F) of a classifier's features over batches of images (N, 3, S, S) in [0, 1]."""
    return np.concatenate([classical_features(classifier, image).cpu().numpy() for image in batches])


class SplitDetector:
    """A detector trained on some rows of one real and one fake feature table; the other rows of both are left to judge it.

    Args:
        classifier: knn | svm | mlp | logreg.
        real, fake: (N, F), (M, F).
        fraction: share of each that trains, at least five rows.
        seed: of the split, drawn without replacement, and of the classifier.
    """

    def __init__(self, classifier, real, fake, fraction, seed):
        rng = np.random.default_rng(seed)
        real, fake = (table[rng.permutation(len(table))] for table in (real, fake))
        cuts = [max(5, round(fraction * len(table))) for table in (real, fake)]
        self.classifier = classifier
        self.state = fit_classical(classifier, real[: cuts[0]], fake[: cuts[1]], seed)
        self.unseen_real, self.unseen_fake = real[cuts[0] :], fake[cuts[1] :]

    def called_fake(self, features):
        """Share of rows (N, F) that are called fake."""
        return float((classical_scores(self.classifier, self.state, features) > BORDER).mean())
