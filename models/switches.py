"""Switches of a network's parts that are off for a while."""

import contextlib


@contextlib.contextmanager
def switched_off(network, kind, name):
    """While this lasts, the attribute `name` of every part of a kind (a class) in a network is False; afterwards it is True."""
    parts = [part for part in network.modules() if isinstance(part, kind)]
    for part in parts:
        setattr(part, name, False)
    try:
        yield
    finally:
        for part in parts:
            setattr(part, name, True)
