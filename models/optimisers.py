"""Optimisers and their schedules: what they hold, and states that are seen to fit when they are loaded."""

import torch

DECIDING = ("last_epoch", "best", "num_bad_epochs")  # numbers of a scheduler by which it goes on


def parameters_of(optimiser):
    """All parameters of an optimiser, as a list."""
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def load_optimiser(optimiser, state):
    """`optimiser.load_state_dict(state)`, which takes any tensors: ValueError if one is missing or does not fit its parameter."""
    optimiser.load_state_dict(state)
    if len({frozenset(kept) for kept in optimiser.state.values()}) > 1:
        raise ValueError("the optimiser's state lacks a part")
    for parameter, kept in optimiser.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"{name} is of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}")


def load_scheduler(scheduler, state):
    """`scheduler.load_state_dict(state)`, which takes any dictionary.

    Raises: KeyError if a number that decides the rate is missing, TypeError if one is none. Others may be missing: what a scheduler
        keeps differs between versions of torch.
    """
    for name, own in scheduler.state_dict().items():
        needed = name in DECIDING or name in state
        if needed and isinstance(own, int | float) and not isinstance(state[name], int | float):
            raise TypeError(f"{name} of the schedule is no number")
    scheduler.load_state_dict(state)
