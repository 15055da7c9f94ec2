"""The device a script runs on, and the processes that share one run (how they are started: utils/launch.py)."""

import contextlib
import functools
import re
import sys

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from utils.errors import UserError, out_of_memory

BUCKET = 2**23  # gradients that are summed in one message: 32 MiB of float32


@functools.cache
def tell_of_cpu():
    """Say, once in a process, that there is no GPU."""
    print("no GPU that torch can use: computing on the CPU", file=sys.stderr)


def resolve_device(text):
    """`--device` -> torch.device.

    Args:
        text: "auto" (first GPU, else Apple's, else the CPU), "cpu", "mps", a GPU number such as "0", or "cuda:1".
    Raises: UserError if that device is not there or the text names none.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        tell_of_cpu()
        return torch.device("cpu")
    if text == "cpu":
        return torch.device("cpu")
    if text == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("--device mps: this machine has no Apple GPU that torch can use; try --device auto")
        return torch.device("mps")
    if "," in text.strip(","):
        raise UserError(f"--device {text}: this command runs on one device; name one, such as --device {text.split(',')[0]}")
    number = "0" if text == "cuda" else text.removeprefix("cuda:")
    if not re.fullmatch("[0-9]+", number):
        raise UserError(f"--device {text!r} is not understood; give auto, cpu, mps, a GPU number such as 0, or cuda:1")
    if int(number) >= torch.cuda.device_count():
        raise UserError(f"--device {text}: this machine has {torch.cuda.device_count()} usable CUDA GPUs; try --device auto or cpu")
    return torch.device(f"cuda:{number}")


def reason(error):
    """What torch's message of a failed connection says first, without the place in its own source; of NCCL's its cause."""
    cause = str(error).partition("Last error:")[2].strip()
    if cause:
        return f"NCCL: {cause.splitlines()[0]}"
    return re.sub(r"^\[\S*\] ", "", str(error).splitlines()[0]).split(". ")[0]


def dealt(values, rank, world):
    """What process `rank` of `world` has of a batch: every `world`-th value from `rank` on, or the first if there is none.

    The first is another process's: it only fills the place, with weight 0.
    """
    return values[rank::world] if len(values) > rank else values[:1]


class ProcessLost(UserError):
    """Another process of the run ended or stopped answering."""

    exit_code = 1


class Processes:
    """The processes that share one run; a single one sends nothing and computes as if this class did not exist.

    Every process runs the same code on its part of the images; whatever is called here must be called by all of them.

    Args:
        device: where this process computes.
        rank, world: number of this process and of all.
        tensors: process group for tensors on `device`; objects go through the default group, which must be gloo's.
        advice: what the user can do when a process is lost, in words.
    Attributes:
        main: whether this process is the one that writes files.
        weight: share of this process's images in the batch of the current step, in [0, 1]; `begin` sets it.
        extent: images in the whole batch for each that this process computes with.
        whole: images in the whole batch, None before `begin`.
    """

    def __init__(self, device=None, rank=0, world=1, tensors=None, advice=""):
        self.device, self.rank, self.world = device, rank, world
        self._tensors, self._advice = tensors, advice
        self.main, self.weight, self.extent, self.whole = rank == 0, 1.0, 1.0, None

    @contextlib.contextmanager
    def _together(self):
        try:
            yield
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            lost = "NCCL failed, or another process" if "NCCL" in str(error) else "another process of this run"
            raise ProcessLost(f"{lost} was lost or did not answer within --timeout ({reason(error)}); {self._advice}") from error

    # ---------------------------------------------------------------------------------------------------- parts of the work

    def block(self, count, batch_size):
        """This process's part of `count` images in order: a range of whole batches, so that each batch is as in one process."""
        first, last = (-(-count // batch_size) * rank // self.world * batch_size for rank in (self.rank, self.rank + 1))
        return range(min(first, count), min(last, count))

    def begin(self, whole):
        """Start a step on a batch of `whole` images, of which this process has what `own` gives."""
        own = len(range(self.rank, whole, self.world))
        self.weight, self.extent, self.whole = own / whole, whole / max(own, 1), whole

    def own(self, values):
        """This process's part of a batch, as `dealt`."""
        return dealt(values, self.rank, self.world)

    def draw(self, function, count):
        """Random numbers for the `count` images here: this process's part of `function(images of the whole batch)`.

        All processes draw the same; after `begin`.
        """
        return function(count) if self.world == 1 else self.own(function(self.whole))

    # -------------------------------------------------------------------------------------------------------------- numbers

    def sum(self, value):
        """Sum of a tensor over the processes, without a graph."""
        if self.world == 1:
            return value.detach()
        value = value.detach().contiguous().clone()
        with self._together():
            dist.all_reduce(value, group=self._tensors)
        return value

    def mean(self, value):
        """Mean over the whole batch of what is, here, a mean over this process's images; differentiable."""
        return value if self.world == 1 else _Sum.apply(value * self.weight, self)

    def backward(self, loss, parameters):
        """Gradients of the whole batch's loss, alike in every process, from the loss of this process's images.

        Parameters that no process uses keep the gradient None.
        """
        if self.world == 1:
            loss.backward()
            return
        (loss * self.weight).backward()
        buckets, filled = [], BUCKET
        for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
            if filled + gradient.numel() > BUCKET:
                buckets.append([])
                filled = 0
            buckets[-1].append(gradient)
            filled += gradient.numel()
        with self._together():
            flat = [torch.cat([gradient.flatten() for gradient in bucket]) for bucket in buckets]
            for work in [dist.all_reduce(values, group=self._tensors, async_op=True) for values in flat]:
                work.wait()
        for bucket, values in zip(buckets, flat, strict=True):
            for gradient, part in zip(bucket, values.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(part.view(gradient.shape))

    def numbers(self, terms):
        """Dict of 0-d tensors, means over this process's images -> dict of floats, means over the whole batch."""
        values = torch.stack([term.float() for term in terms.values()]) * self.weight
        return dict(zip(terms, self.sum(values).tolist(), strict=True))

    # -------------------------------------------------------------------------------------------------------------- objects

    def any(self, flag):
        """Whether `flag` is true in any process."""
        if self.world == 1:
            return flag
        flags = torch.tensor(float(flag))
        with self._together():
            dist.all_reduce(flags)
        return bool(flags)

    def once(self, function):
        """What `function()` returns in the main process, which alone calls it; CPU tensors and plain objects only.

        Random numbers that it draws count as drawn by all.
        """
        if self.world == 1:
            return function()
        found = [function(), torch.get_rng_state()] if self.main else [None, None]
        with self._together():
            dist.broadcast_object_list(found)
        torch.set_rng_state(found[1])
        return found[0]

    def gather(self, value):
        """List of every process's value in the main process, None in the others."""
        if self.world == 1:
            return [value]
        values = [None] * self.world if self.main else None
        with self._together():
            dist.gather_object(value, values)
        return values

    def send_no_more_tensors(self):
        """Leave the devices' group together, before one process goes on alone for long: NCCL's ends in all at once."""
        if self._tensors is not None:
            self.wait()
            dist.destroy_process_group(self._tensors)
            self._tensors = None

    def wait(self):
        """Go on when all processes have come here."""
        if self.world > 1:
            with self._together():
                dist.barrier()


class _Sum(torch.autograd.Function):
    """Sum over the processes; the gradient is the sum of their gradients, and has none itself."""

    @staticmethod
    def forward(ctx, value, processes):
        ctx.processes = processes
        return processes.sum(value)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return ctx.processes.sum(gradient), None
