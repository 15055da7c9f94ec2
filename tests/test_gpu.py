"""What a GPU computes beside what the CPU does, and what only a GPU can show; skipped where there is none."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import SMALL_NETWORK, draw_tiny, photographs
from torch.backends.cuda import matmul

import eval as eval_script
import inference
import train
from models import losses
from models.batch_norm import BatchNorm
from models.stig import STIG, Objective
from models.training import Trainer
from utils.aliases import alias_features
from utils.checkpoint import load_checkpoint
from utils.decay import decay_features
from utils.distributed import Processes
from utils.filters import FILTERS, filtered, fit_filters, to_device
from utils.metrics import SpectrumMean, psnr, ssim
from utils.profiles import log_profile
from utils.whitening import fit_whitening

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ROOT, SIZE = Path(__file__).parents[1], 32
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, before the first product


@pytest.fixture(autouse=True)
def full_precision():
    """Convolutions in float32, not TF32, so that numbers compare."""
    places = (torch.backends.cudnn, matmul)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value


@pytest.fixture
def reproducible():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def fitted_parts():
    """All filters and the whitening of a few images."""
    real, fake = photographs(12, 1), photographs(12, 2, 0.5)
    return fit_filters(lambda: [real], lambda: [fake]), fit_whitening([real])


def make_trainer(device="cuda", record=False, **settings):
    torch.manual_seed(0)
    filters, whitening = fitted_parts()
    objective = Objective(nce_levels=(0, 2), sigma=4)
    model = STIG(SIZE, objective, width=8, base=filters["polyphase"], whitening=whitening, centre=True, **settings).to(device)
    return Trainer(model, 1e-4, 20, 0.9, record=record)


def take_steps(trainer, batches):
    """Terms of each step, on batches of so many images."""
    torch.manual_seed(1)
    device = next(trainer.model.parameters()).device
    terms = []
    for seed, count in enumerate(batches):
        fake, real = photographs(count, 10 + seed, 0.5), photographs(count, 50 + seed)
        terms.append({name: float(term) for name, term in trainer.train_step(fake.to(device), real.to(device)).items()})
    return terms


def assert_same_terms(first, second, rel):
    for step, (a, b) in enumerate(zip(first, second, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=rel, abs=1e-4), (step, name)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_step_is_the_cpus(norm):
    trainers = [make_trainer(device, norm=norm) for device in ("cpu", "cuda")]
    assert_same_terms(*(take_steps(trainer, [2, 2, 1]) for trainer in trainers), rel=2e-3)


def test_recorded_steps_are_those_that_are_not(reproducible):
    """Also where a smaller batch comes between, after a state was loaded, and for the weights."""
    plain, recorded = make_trainer(), make_trainer(record=True)
    batches = [2, 2, 2, 2, 2, 1, 2, 2, 1, 2]
    assert_same_terms(take_steps(plain, batches), take_steps(recorded, batches), rel=1e-3)
    assert recorded._passes._parts and not hasattr(plain._passes, "_parts")
    recorded.load_state_dict(copy.deepcopy(plain.state_dict()))  # optimisers keep the tensors that they are given
    assert_same_terms(take_steps(plain, [2, 2]), take_steps(recorded, [2, 2]), rel=1e-4)
    for a, b in zip(plain.model.parameters(), recorded.model.parameters(), strict=True):
        assert (a - b).abs().mean() < 1e-5
    assert plain.lr == recorded.lr


def _norms(trainer):
    return [part for part in trainer.model.generator.modules() if isinstance(part, BatchNorm)]


@pytest.mark.parametrize("settings", [{"amp": True}, {"norm": "batch"}, {"mode": "direct"}, {"upsample": "bicubic"}])
def test_recording_every_form(settings):
    plain, recorded = make_trainer(**settings), make_trainer(record=True, **settings)
    found = [take_steps(trainer, [1] * 6) for trainer in (plain, recorded)]
    assert_same_terms(*found, rel=0.05 if "amp" in settings else 1e-2)
    counts = [[int(part.num_batches_tracked) for part in _norms(trainer)] for trainer in (plain, recorded)]
    assert counts[0] == counts[1] and all(counts[0])


def test_compiled_steps_are_those_that_are_not():
    plain, compiled = make_trainer(), make_trainer(record=True)
    compiled.model.generator.compile_parts()
    batches = [2, 2, 2, 2, 1, 2]
    assert_same_terms(take_steps(plain, batches), take_steps(compiled, batches), rel=1e-2)


@pytest.mark.parametrize("record", [False, True])
def test_a_step_never_waits_for_the_gpu(record):
    trainer = make_trainer(record=record)
    take_steps(trainer, [2] * 5)
    pair = [photographs(2, seed).pin_memory().to("cuda") for seed in (1, 2)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            trainer.train_step(*pair)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_steps_repeat_bit_by_bit(reproducible):
    first, second = (make_trainer() for _ in range(2))
    assert take_steps(first, [2, 2, 1]) == take_steps(second, [2, 2, 1])
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_the_ssim_loss_is_exact_where_convolutions_are_not():
    """TF32, torch's default for convolutions, would make it negative here."""
    torch.backends.cudnn.allow_tf32 = True
    image = photographs(2, 1)
    lost = [(1 - losses.ssim(x, 0.99 * x)).item() for x in (image, image.cuda())]
    assert 0 < lost[0] == pytest.approx(lost[1], rel=1e-2)


def test_filters_and_measures_are_the_cpus():
    real, fake = photographs(12, 1), photographs(12, 2, 0.5)
    kinds = fit_filters(lambda: [real], lambda: [fake])
    found = fit_filters(lambda: [real.cuda()], lambda: [fake.cuda()])
    for kind in FILTERS:
        here, there = (filtered(fake.to(device), to_device(kinds[kind], device)).cpu() for device in ("cpu", "cuda"))
        assert (here - there).abs().max() < 1e-4
        assert (here - filtered(fake.cuda(), found[kind]).cpu()).abs().max() < 2e-3
    for measure in (decay_features, log_profile, alias_features):
        torch.testing.assert_close(measure(fake.cuda()).cpu(), measure(fake), rtol=1e-4, atol=1e-6)
    for measure in (psnr, ssim):
        torch.testing.assert_close(measure(fake.cuda(), real.cuda()).cpu(), measure(fake, real), rtol=1e-6, atol=1e-9)
    means = [SpectrumMean() for _ in range(2)]
    for mean, device in zip(means, ("cpu", "cuda"), strict=True):
        mean.update(fake.to(device))
    torch.testing.assert_close(means[1].log_mag.cpu(), means[0].log_mag, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return draw_tiny(tmp_path_factory.mktemp("gpu_house"), 5, 5)


SMALL = [*SMALL_NETWORK, "--data", "tiny", "--size", "32", "--device", "0", "--epoch", "3", "--batch_size", "2"]


def run_script(house, *arguments):
    """A script in a process of its own; what it printed."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=house, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def weights(folder):
    content = load_checkpoint(folder / "checkpoint.pt", "stig")
    return content["model"] | content["averaged"] | {"random": content["random"]["cpu"]}


def same(first, second):
    return all(first[name] is second[name] or torch.equal(first[name], second[name]) for name in first)


def test_deterministic_trainings_and_resumed_ones_are_equal(house, monkeypatch, reproducible):
    """In processes of their own; the interrupted one stops in its fifth step of nine."""
    monkeypatch.chdir(house)
    torch.backends.cudnn.allow_tf32 = True  # as in the other processes
    for dst in ("first", "second"):
        run_script(house, sys.executable, ROOT / "train.py", *SMALL, "--deterministic", "--dst", dst)
    assert same(weights(house / "results/first"), weights(house / "results/second"))
    options, step = [*SMALL, "--deterministic", "--dst", "stopped"], Trainer.train_step

    def stopping(self, *images):
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
        return step(self, *images)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step", stopping)
        with pytest.raises(SystemExit) as stop:
            train.main(options)
    assert stop.value.code == 130
    run_script(house, sys.executable, ROOT / "train.py", *options, "--resume")
    assert same(weights(house / "results/first"), weights(house / "results/stopped"))


def test_train_refine_and_measure(house, monkeypatch, capsys):
    monkeypatch.chdir(house)
    train.main([*SMALL, "--amp", "--holdout", "0.4", "--dst", "run"])
    folder = ["--inference_data", "datasets/tiny/fake", "--inference_params", "results/run/checkpoint.pt", "--overwrite"]
    for number, device in enumerate(("0", "cpu")):
        inference.main([*folder, "--dst", f"refined_{number}", "--device", device])
    named = ["--real", "datasets/tiny/real", "--fake", "results/refined_0/refined", "--size", "32"]
    eval_script.main([*named, "--eval_mode", "lfd", "--device", "0", "--dst", "measured"])
    assert "LFD float" in capsys.readouterr().out


def test_a_step_goes_through_nccl():
    """All that a step sends, with a share of half the batch: one process is all that one GPU can have."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        group = torch.distributed.new_group(backend="nccl")
        processes = Processes(torch.device("cuda:0"), 0, 2, group)
        trainer = make_trainer()
        shared = Trainer(trainer.model, 1e-4, 20, 0.9, processes)
        terms = shared.train_step(photographs(1, 1).cuda(), photographs(1, 2).cuda(), 2)
        assert all(torch.isfinite(torch.tensor(list(processes.numbers(terms).values()))))
        processes.wait()
        assert processes.any(True) and processes.once(lambda: 3) == 3
    finally:
        torch.distributed.destroy_process_group()
