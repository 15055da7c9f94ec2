"""Scripts, steps and measures on a device that is not the CPU (tests/elsewhere.py)."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import SMALL_NETWORK, draw
from torch.utils._pytree import tree_flatten_with_path

import detect
import eval as eval_script
import gan
import inference
import train
from utils.locks import let_go

ROOT = Path(__file__).resolve().parent.parent
NETWORK = " ".join(SMALL_NETWORK)
SETS, FEW = (f"--real datasets/{name}/real --fake datasets/{name}/fake --size 32" for name in ("set", "few"))
COMMANDS = [
    f"train.py --data set --holdout 0.5 --size 32 {NETWORK} --patches 32 --epoch 1 --batch_size 4 --num_workers 1 --dst trained",
    "train.py --data set --preset released --size 32 --width 8 --epoch 1 --batch_size 6 --norm batch --upsample bicubic "
    "--dst released",
    "inference.py --inference_data datasets/set/fake --inference_params results/trained --dst refined",
    f"inference.py --inference_data datasets/set/fake --method polyphase {SETS} --dst filtered",
    f"eval.py {FEW} --eval_mode image_fid --inception_weights WEIGHTS --dst measured",
    f"detect.py {SETS} --classifier cnn_whitened,logreg,coherence --split 0.6 --class_epoch 1 --dst found",
    "gan.py train --data set --size 32 --dim 8 --latent_dim 8 --batch_size 6 --epochs 1 --adversarial lsgan "
    "--spectral_loss 0.1 --monitor lfd --monitor_samples 20 --dst made",
    "gan.py sample --dst made --n 3 --out samples",
    "gan.py study spectrum --real datasets/set/real --inputs made --n 4 --dst spectra",
    "gan.py invert --dst made --data set --n 2 --steps 2 --threshold 9 --out pairs",
]
TIMED = {"tensorboard", "statistics"}  # folders of files whose names hold a time
MAINS = {"train.py": train, "inference.py": inference, "eval.py": eval_script, "detect.py": detect, "gan.py": gan}


lacks_it = not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
pytestmark = pytest.mark.skipif(lacks_it, reason="this torch knows no devices written in Python")


@pytest.fixture(scope="module")
def commands(weights):
    return [command.replace("WEIGHTS", str(weights)) for command in COMMANDS]


def make_house(folder):
    for seed, side in enumerate(("real", "fake")):
        draw(folder / "datasets/set" / side, 12, seed)
        draw(folder / "datasets/few" / side, 4, seed)
    return folder


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory, commands):
    """A folder in which all commands have run on the CPU."""
    folder = make_house(tmp_path_factory.mktemp("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands:
            script, *arguments = shlex.split(command)
            MAINS[script].main([*arguments, "--device", "cpu"])
            let_go()
    return folder


def tensors_of(path):
    """All numbers of a checkpoint, by their place in it."""
    content = torch.load(path, weights_only=True)
    return {key: leaf for key, leaf in tree_flatten_with_path(content)[0] if isinstance(leaf, torch.Tensor)}


def assert_same_files(folder, other):
    """Pictures byte for byte, checkpoints number for number, tables but for the time that things took."""
    found, expected = ({path.relative_to(top): path for path in top.rglob("*") if path.is_file()} for top in (folder, other))
    names, others = ({name for name in paths if not TIMED & {*name.parts}} for paths in (found, expected))
    assert names == others
    for name in sorted(names):
        mine, theirs = found[name], expected[name]
        if name.suffix == ".png":
            assert mine.read_bytes() == theirs.read_bytes(), name
        elif name.suffix == ".pt":
            tensors, others = tensors_of(mine), tensors_of(theirs)
            assert tensors.keys() == others.keys()
            assert not [str(key) for key in tensors if not torch.equal(tensors[key], others[key])], name
        elif name.suffix == ".csv":
            rows = [[line.rpartition(",")[0] for line in path.read_text().splitlines()] for path in (mine, theirs)]
            assert rows[0] == rows[1], name
        elif name.name.startswith("eval_"):
            numbers = [json.loads(path.read_text())["rows"] for path in (mine, theirs)]
            assert numbers[0] == numbers[1], name


@pytest.mark.parametrize("float64", [True, False])
def test_scripts_do_the_same_elsewhere(tmp_path, commands, on_the_cpu, float64):
    """And no training step waits for what the device computes."""
    house, driver = make_house(tmp_path), [sys.executable, ROOT / "tests/elsewhere.py", *([] if float64 else ["--no_float64"])]
    lines = "\n".join(commands)
    done = subprocess.run(driver, input=lines, capture_output=True, text=True, check=False, cwd=house, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "training on elsewhere:0" in done.stdout
    assert_same_files(house, on_the_cpu)
    waits = done.stdout.splitlines()[-1]
    assert "copies there" in waits and "reads" not in waits and "copies here" not in waits
