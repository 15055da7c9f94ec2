"""How good a generator is while it trains: FID, KID or LFD of numbered samples against photographs."""

import itertools
import sys

import numpy as np

from gan_commands.common import MONITOR, draw_batches
from utils.errors import UserError
from utils.feature_metrics import Moments, frechet_distance, kernel_distance
from utils.inception import find_weights, inception_features, load_inception
from utils.metrics import SpectrumMean, lfd


def choose_monitor(kind, weights):
    """Name of the monitor and path of the Inception weights (None for lfd).

    Without a `kind`, fid if its weights are there or can be downloaded, else lfd, which is said on stderr.
    """
    if kind == "lfd":
        return kind, None
    try:
        return kind or "fid", find_weights(weights)
    except UserError:
        if kind or weights:
            raise
        print("warning: the Inception weights are missing, so the monitor is lfd; --inception_weights gives them", file=sys.stderr)
        return "lfd", None


class GanMonitor:
    """Scores generators against the same photographs; lower is better.

    Args:
        kind: fid | kid | lfd (without rounding).
        weights: path of the Inception weights, None for lfd.
        real_batches: iterable of (N, 3, S, S) in [0, 1].
        count: reals (as far as there are that many) and fakes that are used.
        seed: of the fakes.
        device: where everything runs.
    """

    def __init__(self, kind, weights, real_batches, count, seed, device):
        self.kind, self.count, self.seed, self.device = kind, count, seed, device
        self.network = None if kind == "lfd" else load_inception(weights, device)
        self.real = self.summary(_first(real_batches, count))

    def summary(self, batches):
        """What the distance needs of some images: their `SpectrumMean`, or Inception features (N, 2048)."""
        if self.kind == "lfd":
            spectrum = SpectrumMean()
            for image in batches:
                spectrum.update(image.to(self.device))
            return spectrum
        return np.concatenate([inception_features(self.network, image.to(self.device)) for image in batches])

    def distance(self, other):
        """Distance of another `summary` to the photographs."""
        if self.kind == "lfd":
            return lfd(self.real, other, bits=None)
        if self.kind == "kid":
            return kernel_distance(self.real, other)[0]
        moments = Moments(), Moments()
        for moment, features in zip(moments, (self.real, other), strict=True):
            moment.update(features)
        return frechet_distance(*itertools.chain(*((moment.mean, moment.covariance) for moment in moments)))

    def score(self, generator):
        """Distance of the generator's samples, always of the same latents; torch's random state is not touched."""
        images = (image for _, image in draw_batches(generator, range(self.count), self.seed, MONITOR))
        return self.distance(self.summary(images))


def _first(batches, count):
    """The first `count` images of batches, in batches."""
    for image in batches:
        yield image[:count]
        count -= len(image)
        if count <= 0:
            return
