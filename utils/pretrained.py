"""ImageNet weights: downloaded, or read from a file."""

from pathlib import Path
from urllib.error import URLError

import torch

from utils.checkpoint import read_tensors
from utils.errors import UserError


def pretrained_weights(choice, url, option):
    """State dictionary of a network trained on ImageNet.

    Args:
        choice: "none", "imagenet" (downloaded once to torch's cache) or the path of a file of the same format.
        url: where the weights are published.
        option: name of the command-line option, for the error.
    Returns: dict of tensors, or None for "none".
    Raises: UserError if they cannot be had, before any long work.
    """
    if choice == "none":
        return None
    if choice != "imagenet":
        state = read_tensors(choice)
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise UserError(f"{option} {choice} does not hold a state dictionary of tensors; give torchvision's file")
        return state
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        raise UserError(
            f"the ImageNet weights {url} cannot be downloaded ({error}); put that file at {place}, name it by {option} PATH, "
            f"or start from nothing by {option} none"
        ) from error
