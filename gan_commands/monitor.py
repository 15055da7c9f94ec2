"""How good a generator is while it trains: FID, KID or LFD of numbered samples against photographs."""

import functools
import itertools
import operator

import numpy as np

from gan_commands.common import BATCH, MONITOR, draw_batches
from utils.errors import UserError, warn
from utils.feature_metrics import Moments, kernel_distance
from utils.inception import find_weights, inception_features, load_inception
from utils.metrics import SpectrumFolds, first_half, lfd

FLOOR_IMAGES = 4  # photographs that halves can be compared of


def choose_monitor(kind, weights):
    """Name of the monitor and path of the Inception weights (None for lfd).

    Without a `kind`, fid if its weights are there or can be downloaded, else lfd, which is said on stderr.
    """
    if kind == "lfd":
        if weights:
            raise UserError("--inception_weights is for --monitor fid or kid; leave it out with lfd")
        return kind, None
    try:
        return kind or "fid", find_weights(weights)
    except UserError:
        if kind or weights:
            raise
        warn("the Inception weights are missing, so the monitor is lfd; --inception_weights gives them")
        return "lfd", None


class GanMonitor:
    """Scores generators against the same photographs; lower is better.

    Args:
        kind: fid | kid | lfd (without rounding).
        weights: path of the Inception weights, None for lfd.
        real_batches: iterable of (N, 3, S, S) in [0, 1]; read in the main process alone.
        count: reals (as far as there are that many) and fakes that are used.
        seed: of the fakes.
        processes: `Processes` that share the fakes; everything runs on their device.
    """

    def __init__(self, kind, weights, real_batches, count, seed, processes):
        self.kind, self.count, self.seed, self.processes = kind, count, seed, processes
        self.network = None if kind == "lfd" else load_inception(weights, processes.device)
        self.real = self.summary(_first(real_batches, count) if self.processes.main else ())

    def summary(self, batches):
        """What the distance needs of some images, of which each process gives its own: None but in the main process.

        Returns: their `SpectrumFolds`, or Inception features (N, 2048).
        """
        if self.kind == "lfd":
            spectra = SpectrumFolds()
            for image in batches:
                spectra.update(image.to(self.processes.device))
            parts = self.processes.gather(spectra)
            return parts and functools.reduce(operator.add, parts)
        parts = self.processes.gather([inception_features(self.network, image.to(self.processes.device)) for image in batches])
        return parts and np.concatenate([*itertools.chain(*parts)])

    def distance(self, other):
        """Distance of another `summary` to the photographs."""
        if self.kind == "lfd":
            return lfd(self._real_spectrum, other.total, bits=None)
        if self.kind == "kid":
            return kernel_distance(self.real, other)[0]
        return self._real_moments.frechet_distance(Moments.of(other))

    def floor(self):
        """Distance of two halves of the photographs, in the main process alone; None if they are fewer than four."""
        if self.kind == "lfd":
            return self.real.floor()["lfd"] if self._real_spectrum.count >= FLOOR_IMAGES else None
        if len(self.real) < FLOOR_IMAGES:
            return None
        is_first = first_half(len(self.real))
        halves = self.real[is_first], self.real[~is_first]
        return kernel_distance(*halves)[0] if self.kind == "kid" else Moments.frechet_distance(*map(Moments.of, halves))

    @functools.cached_property
    def _real_spectrum(self):
        return self.real.total

    @functools.cached_property
    def _real_moments(self):
        return Moments.of(self.real)

    def score(self, generator):
        """Distance of the generator's samples, always of the same latents; the same number in all processes.

        Torch's random state is not touched.
        """
        indices = self.processes.block(self.count, BATCH)
        summary = self.summary(image for _, image in draw_batches(generator, indices, self.seed, MONITOR))
        return self.processes.once(lambda: self.distance(summary))


def _first(batches, count):
    """The first `count` images of batches, in batches."""
    for image in batches:
        yield image[:count]
        count -= len(image)
        if count <= 0:
            return
