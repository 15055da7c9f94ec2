"""`STIG` with the weights that a training left behind, ready to refine."""

import dataclasses

from models.stig import STIG, Objective
from utils.filters import FILTER_PARTS


def trained_model(checkpoint):
    """`STIG` of a checkpoint of train.py, with the averaged generator where there is one.

    Raises: KeyError, TypeError, ValueError or RuntimeError if a part is missing or does not fit.
    """
    state = checkpoint["model"]
    base = {name: state[f"base_{name}"] for name in FILTER_PARTS if f"base_{name}" in state}
    model = STIG.from_settings(checkpoint["settings"], base, state.get("whitening"))
    model.load_state_dict(state)
    if checkpoint["averaged"] is not None:
        averaged = {name.removeprefix("module."): value for name, value in checkpoint["averaged"].items() if name != "n_averaged"}
        model.generator.load_state_dict(averaged)
    return model


def released_model(weights, size, preset):
    """`STIG` with a generator of the released code.

    Args:
        weights: its state dictionary, with the image's order of channels (`utils.checkpoint.released_generator`).
        size: side of the images in pixels. preset: options of train.py that behave as the released code does.
    Raises: ValueError if the weights do not fit the network.
    """
    named = {field.name for field in dataclasses.fields(Objective)}
    objective = dataclasses.asdict(Objective(**{name: value for name, value in preset.items() if name in named}))
    settings = {
        "size": size,
        "mode": preset["generator"],
        "norm": preset["norm"],
        "upsample": preset["upsample"],
        "width": 64,
        "centre": False,
    }
    model = STIG.from_settings(settings | {"objective": objective})
    try:
        problems = model.generator.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    wrong = [name for name in problems.missing_keys if not name.endswith("num_batches_tracked")] + problems.unexpected_keys
    if wrong:
        raise ValueError(f"the tensor {wrong[0]} is missing or unknown")
    return model
