"""Inception features for FID and KID: pytorch-fid's network and weights, and the statistics of a folder, cached."""

import contextlib
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from pytorch_fid import inception

from utils.checkpoint import read_tensors
from utils.errors import UserError, out_of_memory
from utils.feature_metrics import Moments
from utils.files import atomic_path
from utils.metrics import first_half
from utils.pretrained import weights_file

DIMENSIONS = 2048
KEPT_FEATURES = 10_000
FORMAT = 2


def find_weights(path=None):
    """Path of the Inception weights: as `weights_file`."""
    otherwise = "choose a measure that needs none, such as lfd"
    return weights_file(path, inception.FID_WEIGHTS_URL, "--inception_weights", otherwise)


def load_inception(path, device="cpu"):
    """pytorch-fid's InceptionV3 (2048 dimensions) with the weights in `path`, in evaluation mode, on `device`.

    Raises: UserError if the file does not hold exactly these weights (it is read as tensors only, never executed).
    """
    state = read_tensors(path)
    try:
        with _weights_instead_of_download(state), torch.random.fork_rng(devices=()):  # first drawn, then filled
            network = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[DIMENSIONS]])
    except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{path} does not hold pytorch-fid's Inception weights; fetch {inception.FID_WEIGHTS_URL}") from error
    return network.eval().requires_grad_(False).to(device)


@contextlib.contextmanager
def _weights_instead_of_download(state):
    """pytorch-fid's constructor always downloads; inside this context it gets `state` instead."""
    original = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda url, progress=True: state
    try:
        yield
    finally:
        inception.load_state_dict_from_url = original


@torch.no_grad()
def inception_features(network, image):
    """Features of a batch (N, 3, H, W) in [0, 1] -> (N, 2048) float32 array; an image's features do not depend on the others."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        return network(image.float())[0].flatten(1).cpu().numpy()


class FeatureStatistics:
    """What FID and KID need of a folder, in memory that does not grow with it.

    Moments of two halves of the images (for the floor), and the features themselves of at most 10,000 of them (for KID).

    Args:
        total: images in the folder.
        start: index of the first image that will come, where others are counted elsewhere.
    """

    def __init__(self, total, start=0):
        self.total, self._next = total, start
        self._halves = (Moments(), Moments())
        chosen = np.random.default_rng(total).permutation(total)[:KEPT_FEATURES]
        self._is_kept = np.isin(np.arange(total), chosen)
        self._is_first = first_half(total)
        self._features, self._pending = [], []

    def update(self, features):
        """Add the features (N, D) of the next N images."""
        self._features.append(features[self._is_kept[self._next : self._next + len(features)]])
        # A covariance update costs D^2 however small its part; the parts are the same for every size of batches.
        for part in np.split(features, range(-self._next % DIMENSIONS, len(features), DIMENSIONS)):
            self._pending.append(part)
            self._next += len(part)
            if self._next % DIMENSIONS == 0:
                self._update_moments()

    def _update_moments(self):
        if self._pending:
            features = np.concatenate(self._pending)
            first = self._is_first[self._next - len(features) : self._next]
            for half, member in zip(self._halves, (first, ~first), strict=True):
                if member.any():
                    half.update(features[member])
            self._pending = []

    def moments(self, half=None):
        """`Moments` of half 0 or 1, or of all images so far."""
        self._update_moments()
        return self._halves[0] + self._halves[1] if half is None else self._halves[half]

    def features(self, half=None):
        """Kept features of half 0 or 1, or of all images: (n, D), n <= 10,000."""
        features = np.concatenate(self._features)
        return features if half is None else features[self._is_first[self._is_kept] == (half == 0)]

    @classmethod
    def joined(cls, parts):
        """The statistics of a folder from those of its consecutive parts, in order.

        Where all features are kept, the moments are made from them anew, batch for batch: the same to the last bit as in one part.
        """
        whole = cls(parts[0].total)
        if whole.total <= KEPT_FEATURES:
            for features in (batch for part in parts for batch in part._features):
                whole.update(features)
            return whole
        for part in parts:
            whole._halves = tuple(first + part.moments(half) for half, first in enumerate(whole._halves))
            whole._features += part._features
        return whole

    def save(self, path):
        """Write a .npz atomically; moments are left out when the kept features say it all."""
        arrays = {"total": self.total, "features": self.features()}
        if self.total > KEPT_FEATURES:
            for half in (0, 1):
                moments = self.moments(half)
                arrays |= {f"{name}_{half}": getattr(moments, name) for name in ("count", "mean", "scatter")}
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path):
        """Undo `save`."""
        with np.load(path) as arrays:
            statistics = cls(int(arrays["total"]))
            if statistics.total <= KEPT_FEATURES:
                statistics.update(arrays["features"])
                return statistics
            statistics._features = [arrays["features"]]
            statistics._halves = tuple(
                Moments(int(arrays[f"count_{half}"]), arrays[f"mean_{half}"], arrays[f"scatter_{half}"]) for half in (0, 1)
            )
        return statistics


def cached_statistics(cache):
    """`FeatureStatistics` from the file `cache`, or None if there is none or it is damaged."""
    if Path(cache).is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile):
            return FeatureStatistics.load(cache)
    return None


def statistics_name(paths, **settings):
    """File name for the statistics of a folder: changes with any image's name or content and with any setting.

    Args:
        paths: the folder's images in order, with `.content(index)` -> bytes.
        settings: what else decides the features (size, weights, ...).
    """
    digest = hashlib.sha256(repr((FORMAT, DIMENSIONS, sorted(settings.items()))).encode())
    for index, path in enumerate(paths):
        digest.update(os.fsencode(f"{path.name}:{hashlib.sha256(paths.content(index)).hexdigest()}\n"))
    return f"inception_{paths[0].parent.name[:40]}_{digest.hexdigest()[:16]}.npz"
