"""Every benchmark runs to its end on the smallest input and prints what it promises (those of quality: test_quality.py)."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks import filters, metrics, scaling, step, upsample
from benchmarks import input as input_benchmark

ROWS = {
    "filters": (
        filters,
        "--sizes 16 --n 8 --rounds 1 --device cpu",
        ("linear", "lifter", "polyphase  ", "polyphase --period 8", "reading and writing (floor)"),
    ),
    "input": (input_benchmark, "--n 5 --size 16 --read 4 --rounds 1 --num_workers 1", ("second check", "pairs of the shards")),
    "metrics": (
        metrics,
        "--sizes 16 --n 4 --workers 0,1 --rounds 1 --device cpu",
        ("LFD and profile", "decay features", "coherence features", "KID"),
    ),
    "step": (step, "--sizes 16 --width 4 --variants plain,eager,amp --turns 1 --profile 2 --device cpu", ("plain", "eager", "amp")),
    "upsample": (upsample, "--batch 1 --turns 1 --device cpu", ("bilinear, 512 x 16 x 16", "bicubic, 64 x 128 x 128")),
}


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """What benchmarks set for their process alone; and what takes long is done on little."""
    monkeypatch.setenv("STIG_CACHE", "")
    monkeypatch.setattr(metrics, "FEATURES", (8,))
    monkeypatch.setattr(step, "device_rates", lambda *_: (1e12, 1e10))  # of large products and copies
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ROWS)
def test_runs(name, capsys):
    module, arguments, rows = ROWS[name]
    module.main(arguments.split())
    out = capsys.readouterr().out
    for row in rows:
        line = next(line for line in out.splitlines() if row in line)
        assert any(float(found) > 0 for found in re.findall(r"[0-9]+\.?[0-9]*", line.split(row)[1])), line


def test_scaling_runs(monkeypatch, capfd):
    monkeypatch.chdir(Path(__file__).parents[1])  # where it starts itself
    scaling.main(["--size", "16", "--batch_size", "2", "--steps", "1", "--turns", "1"])
    rows = [line.split("|") for line in capfd.readouterr().out.splitlines() if "process" in line]
    assert [row[1].strip() for row in rows[1:]] == ["1 process", "2 processes"] and float(rows[1][5]) == 1
