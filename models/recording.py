"""A training step's forward and backward passes as CUDA graphs: recorded once, then replayed without Python's or the driver's pace.

At batch 1 a GPU needs less time for a step's thousands of kernels than a CPU needs to launch them (docs/performance.md).
"""

import dataclasses

import torch

from models.optimisers import parameters_of

WARM_UP = 3  # steps before one is recorded: kernels are compiled and constants copied in them


class NotRecorded(RuntimeError):
    """This GPU, its driver or this torch does not let a step be recorded."""


@dataclasses.dataclass(frozen=True)
class _Part:
    """One recorded part of a step: what it is called, and where its terms and gradients lie after a replay."""

    side: str
    graph: "torch.cuda.CUDAGraph"
    names: list
    values: torch.Tensor
    gradients: list


class StepRecorder:
    """Calls like the function it is given, which it replays on batches of the largest size, once some of those have been seen.

    Smaller batches, such as the last of an epoch, are computed as ever. What the function reads besides its arguments must stay at
    its place in memory, as parameters do that an optimiser or `load_state_dict` changes.

    Args:
        passes: function of tensors on the current GPU that yields (side, terms) of each part of a step, whose gradients it has left
            with the parameters of `optimisers[side]`.
        optimisers: {side: optimiser}; their steps are not recorded.
    Raises: NotRecorded, when it is called.
    """

    def __init__(self, passes, optimisers):
        self._passes, self._optimisers = passes, optimisers
        self._shapes, self._seen, self._inputs, self._parts = None, 0, None, []
        self._stream = torch.cuda.Stream()

    def __call__(self, *inputs):
        shapes = [tensor.shape for tensor in inputs]
        if self._shapes is None or len(inputs[0]) > self._shapes[0][0]:
            self._shapes, self._seen, self._parts = shapes, 0, []
        if shapes != self._shapes:
            yield from self._passes(*inputs)
        elif self._seen < WARM_UP:
            self._seen += 1
            yield from self._beside(self._passes(*inputs))
        else:
            if not self._parts:
                self._record([tensor.clone() for tensor in inputs])
            yield from self._replay(inputs)

    def _beside(self, parts):
        """The parts, computed on the stream that will record, which the current one waits for."""
        while True:
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                found = next(parts, None)
            current.wait_stream(self._stream)
            if found is None:
                return
            yield found

    def _record(self, inputs):
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)  # outside of the recording
        pool, parts, passes = torch.cuda.graph_pool_handle(), [], self._passes(*inputs)
        try:
            for _ in self._optimisers:
                graph = torch.cuda.CUDAGraph()
                # thread_local: threads that read ahead may pin memory meanwhile
                with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                    side, terms = next(passes)
                    values = torch.stack([term.float() for term in terms.values()])
                gradients = [(p, p.grad) for p in parameters_of(self._optimisers[side]) if p.grad is not None]
                parts.append(_Part(side, graph, list(terms), values, gradients))
            next(passes, None)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if isinstance(error.__context__, torch.OutOfMemoryError):  # which broke the recording off
                raise error.__context__ from None
            raise NotRecorded(f"this GPU did not let a training step be recorded ({str(error).splitlines()[0]})") from error
        self._inputs, self._parts = inputs, parts

    def _replay(self, inputs):
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        for part in self._parts:
            part.graph.replay()
            for parameter, gradient in part.gradients:
                parameter.grad = gradient
            yield part.side, dict(zip(part.names, part.values.clone(), strict=True))
