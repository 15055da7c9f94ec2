"""What is recorded and replayed, with graphs that do on the CPU what CUDA's do: tests/test_gpu.py has the real ones."""

import contextlib

import pytest
import torch

from models import recording
from models.recording import WARM_UP, NotRecorded, StepRecorder

SIDES = ("discriminator", "generator")


class Step:
    """Two sides of one parameter each, whose gradients depend on the batch and on how far the other side's optimiser went."""

    def __init__(self):
        self.weights = {side: torch.nn.Parameter(torch.full((2,), 1.0 + number)) for number, side in enumerate(SIDES)}
        self.optimisers = {side: torch.optim.SGD([weight], 0.1) for side, weight in self.weights.items()}
        self.computed = 0

    def passes(self, fake, real):
        self.computed += 1
        for side, image in zip(SIDES, (fake, real), strict=True):
            loss = (image.sum(0) * self.weights[side] * self.weights["discriminator"].detach()).square().sum()
            self.optimisers[side].zero_grad(set_to_none=True)
            loss.backward()
            yield side, {"loss": loss.detach(), "twice": 2 * loss.detach()}

    def take(self, passes, fake, real):
        terms = []
        for side, found in passes(fake, real):
            self.optimisers[side].step()
            terms += [float(value) for value in found.values()]
        return terms


@pytest.fixture
def recorded(monkeypatch):
    """A step and its recorder; replaying a part runs it again on the recorded inputs, into the tensors that it left."""
    step, graphs = Step(), []

    class Graph:
        def __init__(self):
            graphs.append(self)
            self.number = len(graphs) - 1

        def replay(self):
            part = recorder._parts[self.number % len(SIDES)]
            side, image = part.side, recorder._inputs[self.number % len(SIDES)]
            with torch.enable_grad():
                loss = (image.sum(0) * step.weights[side] * step.weights["discriminator"].detach()).square().sum()
                ((parameter, left),) = part.gradients
                left.copy_(torch.autograd.grad(loss, parameter)[0])
            part.values.copy_(torch.stack([loss.detach(), 2 * loss.detach()]))

    class Stream:
        def wait_stream(self, other):
            pass

    nothing = {"graph": lambda *_, **__: contextlib.nullcontext(), "stream": lambda _: contextlib.nullcontext()}
    for name, function in nothing.items():
        monkeypatch.setattr(recording.torch.cuda, name, function)
    for name, made in {"Stream": Stream, "current_stream": Stream, "graph_pool_handle": object, "CUDAGraph": Graph}.items():
        monkeypatch.setattr(recording.torch.cuda, name, made)
    recorder = StepRecorder(step.passes, step.optimisers)
    return step, recorder


def batch(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, count, 2, generator=generator).unbind()


@pytest.mark.parametrize("counts", [[3] * 8, [3, 3, 3, 3, 3, 1, 3, 1, 3], [1, 3, 3, 3, 3, 3, 1, 3]])
def test_replayed_steps_are_those_computed(recorded, counts):
    """Also if the first batch is the last of an epoch that is resumed."""
    step, recorder = recorded
    plain = Step()
    for seed, count in enumerate(counts):
        pair = batch(count, seed)
        assert step.take(recorder, *pair) == pytest.approx(plain.take(plain.passes, *pair))
    for side in SIDES:
        torch.testing.assert_close(step.weights[side], plain.weights[side])
    assert step.computed == WARM_UP + counts.count(1) + 1  # and once while it is recorded


def test_terms_of_a_step_stay_when_the_next_is_replayed(recorded):
    step, recorder = recorded
    for seed in range(WARM_UP + 1):
        step.take(recorder, *batch(2, seed))
    first = next(recorder(*batch(2, 10)))[1]["loss"]
    before = float(first)
    step.take(recorder, *batch(2, 11))
    assert float(first) == before


def test_what_cannot_be_recorded_is_told(recorded, monkeypatch):
    step, recorder = recorded
    for seed in range(WARM_UP):
        step.take(recorder, *batch(2, seed))

    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recording.torch.cuda, "graph", refuse)
    with pytest.raises(NotRecorded, match=r"not permitted when stream is capturing\)$"):
        step.take(recorder, *batch(2, 9))
