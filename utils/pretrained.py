"""Published weights: a file that the user names, torch's cached download, or a download now."""

import re
import socket
from pathlib import Path

import torch

from utils.checkpoint import is_state, read_tensors
from utils.errors import UserError
from utils.files import atomic_path

PATIENCE = 15  # seconds without an answer before a download is given up


def weights_file(path, url, option, otherwise):
    """Path of a file of published weights.

    Args:
        path: of the file; None: torch's cached download, or a download now.
        url: where it is published; the name ends with the first digits of its SHA-256.
        option: of the command line that names it. otherwise: what the user can do without it, in words.
    Raises: UserError naming the file, its address and the option if it cannot be had.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UserError(f"{option} {path} is not a file; download it from {url}")
        return Path(path)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not cached.is_file():
        digits, timeout = re.search(r"-([0-9a-f]{8,})\.", cached.name), socket.getdefaulttimeout()
        try:
            socket.setdefaulttimeout(PATIENCE)
            with atomic_path(cached) as temporary:
                torch.hub.download_url_to_file(url, str(temporary), hash_prefix=digits[1] if digits else None)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the weights {cached.name} are not in {cached.parent} and cannot be downloaded ({error}); fetch {url} "
                f"on a machine with network and give the file with {option} PATH, or {otherwise}"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
    return cached


def pretrained_weights(choice, url, option):
    """State dictionary of a network trained on ImageNet.

    Args:
        choice: "none", "imagenet" (the published file) or the path of a file of the same format.
        url, option: as `weights_file`.
    Returns: dict of tensors, or None for "none".
    Raises: UserError if they cannot be had, before any long work.
    """
    if choice == "none":
        return None
    path = weights_file(None if choice == "imagenet" else choice, url, option, f"start from nothing by {option} none")
    state = read_tensors(path)
    if not is_state(state):
        raise UserError(f"{option} {path} does not hold a state dictionary of tensors; give torchvision's file")
    return state
