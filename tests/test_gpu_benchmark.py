"""benchmarks.gpu: its commands can be typed, and what they print is kept whatever becomes of them."""

import importlib
import shlex
import time
from types import SimpleNamespace

import pytest
import torch
from small import told

from benchmarks import gpu
from options import parse_train


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "resolve_device", lambda name: SimpleNamespace(type="cuda"))
    return tmp_path / "results" / "gpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure")
@pytest.mark.parametrize("name", gpu.COMMANDS)
def test_commands_fail_for_want_of_a_gpu_alone(name, capsys):
    words = shlex.split(gpu.COMMANDS[name])
    if words[0] == "train.py":
        assert parse_train(words[1:]).device == "0"
    elif words[1] != "pytest":
        said = told(importlib.import_module(words[1]).main, words[2:], capsys)
        assert "usage" not in said and "GPU" in said


def test_each_output_is_kept_and_none_measured_twice(house, monkeypatch, capsys):
    commands = {"good": "-c 'print(6 * 7)'", "bad": "-c 'print(1); 1 / 0'", "slow": "-c 'import time; print(2); time.sleep(60)'"}
    monkeypatch.setattr(gpu, "COMMANDS", commands | {"late": "-c 'print(3)'"})
    start = time.monotonic()
    found = gpu.main(["--minutes", "0.1", "--only", "good,bad,slow,late"])
    assert time.monotonic() - start < 30
    ends = [found[name].split(",")[0] for name in found]
    assert ends == ["done", "failed with exit code 1", "out of time", "no time left"]
    assert (house / "good.txt").read_text() == f"$ python {commands['good']}\n\n42\n"
    assert "ZeroDivisionError" in (house / "bad.unfinished").read_text()
    assert (house / "slow.unfinished").read_text().endswith("\n2\n")
    assert sorted(path.name for path in house.iterdir()) == ["bad.unfinished", "good.txt", "slow.unfinished"]
    commands["bad"] = "-c 'print(4)'"
    monkeypatch.setattr(gpu, "COMMANDS", commands)
    again = gpu.main(["--only", "good,bad"])
    assert again["good"] == "done before" and again["bad"].startswith("done,")
    assert sorted(path.name for path in house.iterdir()) == ["bad.txt", "good.txt", "slow.unfinished"]
    assert "done before" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "resolve_device", lambda name: SimpleNamespace(type="cpu"))
    assert "no CUDA GPU" in told(gpu.main, [], capsys) and not list(tmp_path.iterdir())
