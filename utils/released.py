"""Generators of the released code: their files, and their weights in this project's order of channels."""

from pathlib import Path

from utils.checkpoint import is_state, read_tensors
from utils.errors import UserError

RELEASED_NAME = "Generator"  # what the released code's file of a generator begins with
RELEASED_ORDER = (2, 0, 1)  # channel c of a released network is channel RELEASED_ORDER[c] of the image


def released_file(path):
    """Path of the generator of the released code: in a folder, or the file itself; None if there is none.

    Raises: UserError if a folder holds several.
    """
    path = Path(path)
    if path.is_file():
        return path if path.name.startswith(RELEASED_NAME) else None
    found = sorted(file for file in path.glob(f"{RELEASED_NAME}*") if file.is_file())
    if len(found) > 1:
        raise UserError(f"{path} holds {len(found)} files called {RELEASED_NAME}... (the first: {found[0].name}); name one")
    return found[0] if found else None


def released_generator(file):
    """State dictionary of a generator of the released code, with the channels back in the image's order.

    Raises: UserError if the file is not one.
    """
    state = read_tensors(file)
    if not is_state(state):
        raise UserError(f"{file} does not hold a state dictionary of tensors")
    # Input channel RELEASED_ORDER[c] of ours must meet the weights the released code used for its channel c.
    back = [RELEASED_ORDER.index(channel) for channel in range(3)]
    try:
        channels = [state["conv0_0.conv1.weight"].shape[1], len(state["final.weight"]), len(state["final.bias"])]
        if channels != [3, 3, 3]:
            raise IndexError(f"{channels} channels come in and go out")
        first = {"conv0_0.conv1.weight": state["conv0_0.conv1.weight"][:, back]}
        return state | first | {name: state[name][back] for name in ("final.weight", "final.bias")}
    except (KeyError, IndexError) as error:
        raise UserError(f"{file} is not a generator of released STIG: a tensor is missing or of another shape ({error})") from error
