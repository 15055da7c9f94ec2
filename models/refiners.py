"""`STIG` with the weights that a training left behind, ready to refine."""

import dataclasses

from models.nested_unet import CHANNELS
from models.stig import STIG, Objective
from utils.filters import FILTER_PARTS


def settings_of(values):
    """What `STIG.from_settings` needs, as plain values, of options of train.py by name; those of the objective may be missing."""
    objective = {field.name: values.get(field.name, field.default) for field in dataclasses.fields(Objective)}
    objective["nce_levels"] = list(objective["nce_levels"])
    own = {name: values[name] for name in ("size", "norm", "upsample", "width", "centre")}
    return own | {"mode": values["generator"], "objective": objective}


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
        weights: its state dictionary, with the image's order of channels (`utils.released.released_generator`).
        size: side of the images in pixels. preset: options of train.py that behave as the released code does.
    Raises: ValueError if the weights do not fit the network.
    """
    model = STIG.from_settings(settings_of(preset | {"size": size, "width": CHANNELS[0]}))
    try:
        problems = model.generator.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    wrong = [name for name in problems.missing_keys if not name.endswith("num_batches_tracked")] + problems.unexpected_keys
    if wrong:
        raise ValueError(f"the tensor {wrong[0]} is missing or unknown")
    return model
