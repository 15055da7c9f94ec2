"""A device that stands in for a GPU: its tensors cannot be mixed with the CPU's, and what waits for it is counted.

    python tests/elsewhere.py < commands                  # lines such as: train.py --data tiny --dst run
    python tests/elsewhere.py --no_float64 < commands     # like Apple's GPUs, which have no float64

All lines run in one process; at the end it says what the training steps waited for. The device computes with the CPU's own
kernels, so that a script must come to the CPU's numbers, bit for bit. It cannot show what a GPU's kernels round, nor what asks for
CUDA by name. Torch is told of it for good: for processes of their own.
"""

import collections
import contextlib
import functools
import importlib
import shlex
import sys
from pathlib import Path

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "elsewhere"
DEVICE = f"{NAME}:0"
MOVES = {"aten::_to_copy", "aten::copy_"}
MIXES = MOVES | {"aten::index", "aten::index_put_", "aten::_index_put_impl_"}  # GPUs take the CPU's indices, too
READS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2"}
MAKERS = (
    "copy_",
    "_to_copy",
    "empty.memory_format",
    "empty_strided",
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "linspace",
)
LAZY = {"aten::_conj": torch.conj_physical, "aten::_neg_view": torch.neg}  # this far below, torch does not do them later
has_float64 = True
counts = collections.Counter()  # "reads" and "copies here" wait for the device, "copies there" may


class ElsewhereTensor(torch.Tensor):
    """A tensor of the device; `here` is a tensor of the CPU with its numbers."""

    @staticmethod
    def __new__(cls, here):
        if here.dtype == torch.float64 and not has_float64:
            raise TypeError(f"{NAME} has no float64")
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype, "layout": here.layout}
        return torch.Tensor._make_wrapper_subclass(cls, here.size(), device=torch.device(DEVICE), requires_grad=False, **layout)

    def __init__(self, here):
        self.here = here

    def __reduce_ex__(self, protocol):
        return self.here.__reduce_ex__(protocol)  # a file is read on the CPU anyway

    def tolist(self):
        """The numbers as Python's, for which torch has no operation."""
        counts["reads"] += 1
        return self.here.tolist()

    def numpy(self, **_):
        """Not of another device's tensor."""
        raise TypeError(f"a tensor of {NAME} is no array; move it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, *args, **(kwargs or {}))


def _compute(func, *args, **kwargs):
    """What an operation gives whose tensors are of the device, or which makes one of it."""
    name = func.overloadpacket._qualified_op_name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    foreign = [isinstance(tensor, ElsewhereTensor) for tensor in tensors]
    if name not in MIXES and any(tensor.dim() and not is_foreign for tensor, is_foreign in zip(tensors, foreign, strict=True)):
        raise RuntimeError(f"{name} mixes tensors of {NAME} and of the CPU")
    goes_there = foreign[0] if foreign else False
    if kwargs.get("device") is not None:
        goes_there = torch.device(kwargs["device"]).type == NAME
        kwargs["device"] = torch.device("cpu")
    if name in MOVES and not (all(foreign) and goes_there):
        counts["copies there" if goes_there else "copies here"] += 1
    counts["reads"] += name in READS
    found = LAZY.get(name, func)(*_here(args), **_here(kwargs))
    returned = func._schema.returns
    if not returned:
        return None
    if returned[0].alias_info is not None and returned[0].alias_info.is_write:
        return kwargs.get("out", args[0])
    return tree_map_only(torch.Tensor, ElsewhereTensor, found) if goes_there else found


def _here(values):
    return tree_map_only(ElsewhereTensor, lambda tensor: tensor.here, values)


class _Runtime(backend_registration._DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def get_rng_state(self, _device=None):
        return torch.get_rng_state()

    def set_rng_state(self, _state, _device=None):
        pass

    def device(self, _index):
        return contextlib.nullcontext()


def install():
    """Tell torch of the device. Returns: the libraries, which must live as long as it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Runtime())
    everything, makers = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(_compute, "PrivateUse1")
    for name in MAKERS:
        packet, _, overload = name.partition(".")
        makers.impl(
            name, functools.partial(_compute, getattr(getattr(torch.ops.aten, packet), overload or "default")), "PrivateUse1"
        )
    return everything, makers


def watch(trainer, method, in_steps):
    """Add to `in_steps` what a trainer's method counts."""
    take_step = getattr(trainer, method)

    def watched(self, *batch):
        before = counts.copy()
        terms = take_step(self, *batch)
        in_steps.update(counts - before)
        return terms

    setattr(trainer, method, watched)


def run(lines):
    """Run the scripts' `main` on the device, one after the other."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    importlib.import_module("utils.distributed").resolve_device = lambda _text: torch.device(DEVICE)
    if not has_float64:  # what the scripts know of Apple's GPUs holds for this one
        importlib.import_module("utils.devices").double_device = lambda _device: torch.device("cpu")
    in_steps = collections.Counter()
    watch(importlib.import_module("models.training").Trainer, "train_step", in_steps)
    watch(importlib.import_module("models.gan_training").GanTrainer, "step", in_steps)
    for line in lines:
        script, *arguments = shlex.split(line)
        importlib.import_module(Path(script).stem).main(arguments)
    print("within training steps:", ", ".join(f"{number} {kind}" for kind, number in sorted(in_steps.items())))


libraries = install()

if __name__ == "__main__":
    has_float64 = "--no_float64" not in sys.argv
    run(sys.stdin)
