"""train.py and inference.py from the command line to the files, on a few small images."""

import csv
import itertools
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_recipe import golden_weights
from PIL import Image
from small import SMALL_NETWORK, Trap, draw, draw_tiny, refused, told

import inference
import train
from data.copies import seen_by_refiner
from options import parse_train
from utils import report, result_files
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.filters import FILTERS
from utils.pictures import write_png
from utils.result_files import write_pictures

ROOT = Path(__file__).parents[1]
SMALL = [*SMALL_NETWORK, "--data", "tiny", "--size", "32", "--device", "cpu", "--epoch", "1"]

pytestmark = pytest.mark.usefixtures("quick_figures")
FINISHED = ["--base", "cepstral", "--sample_frequency", "2", "--save_frequency", "2"]  # options of the fixture `run`


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with datasets/tiny, in which the scripts run."""
    return draw_tiny(tmp_path_factory.mktemp("house"), 5, 4)


@pytest.fixture(autouse=True)
def inside(house, monkeypatch):
    monkeypatch.chdir(house)


@pytest.fixture(scope="module")
def run(house):
    """One finished training of four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(house)
        train.main([*SMALL, "--dst", "run", *FINISHED])
    return house / "results/run"


def test_training_writes_everything(run):
    rows = list(csv.DictReader((run / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 5))
    assert {"loss_g", "loss_d", "nce_fake", "low_frequency", "lr", "images_per_s"} < rows[0].keys()
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert [int(row["step"]) for row in csv.DictReader((run / "monitor.csv").open())] == [2, 4]
    assert len(list((run / "sample").glob("000002_*.png"))) == 3
    for name, count in (("real", 5), ("fake", 4), ("refined", 4)):
        for kind in (name, f"{name}_mag"):
            files = sorted(path.name for path in (run / "eval" / kind).iterdir())
            assert files == [f"{index:02d}.png" for index in range(count)]
    table = json.loads((run / "table.json").read_text())
    assert list(table) == ["fake", *FILTERS, "refined", "floor (two halves of real)"]
    assert {"lfd", "gap", "logreg", "coherence", "psnr"} <= table["refined"].keys()
    report = (run / "report.md").read_text()
    assert "overview.png" in report
    assert "Against the filter that training starts from (`cepstral`), refined is" in report
    assert "These are the images trained on" in report
    assert (run / "overview.png").stat().st_size > 10_000
    assert any((run / "tensorboard").iterdir())
    assert json.loads((run / "options.json").read_text())["base"] == "cepstral"
    assert not list(run.rglob("*.tmp*"))


def test_the_report_says_how_the_run_was_made(house, capsys):
    """Its command gives the same options again, and every warning stands in it."""
    draw(house / "datasets/mixed/real", 3, 1)
    draw(house / "datasets/mixed/fake", 3, 2, size=48)
    (house / "datasets/mixed/fake/broken.png").touch()
    command = [*SMALL, "--data", "mixed", "--dst", "told", "--skip_bad", "--preset", "released", "--nce_levels", "0,4"]
    command += ["--batch_size", "4", "--sigma", "16"]
    train.main([*command, "--amp"])
    section = Path("results/told/report.md").read_text().split("## The run")[1]
    words = shlex.split(section.split("```")[1])
    assert words[:2] == ["python", "train.py"] and parse_train(words[2:]) == parse_train([*command, "--amp"])
    assert "--amp" in words and "--norm" not in words and "--seed" not in words  # the preset's and the default
    assert "Trained on 3 real and 3 fake images. Made by python" in section and "torch 2" in section
    told = [line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line for line in section.splitlines() if line.startswith("- ")] == [f"- {text}" for text in told]
    assert [
        any(words in text for text in told)
        for words in ("left out", "are resized", "image sizes differ", "4 is more than the 3 fakes", "--sigma 16 makes all of")
    ] == [True] * 5


def test_many_warnings_are_counted(run):
    assert "There were no warnings." in (run / "report.md").read_text()
    section = report.run_section(["x"], {"train_real": [1], "train_fake": [2]}, [f"left out: {i}" for i in range(23)])
    assert "- left out: 19\n- and 3 more" in section and "left out: 20" not in section


def test_checkpoint_is_complete_and_plain(run):
    content = load_checkpoint(run / "checkpoint.pt", "stig")
    assert content["step"] == 4
    parts = {name.split(".")[0] for name in content["model"]}
    assert parts == {"generator", "discriminator", "spectral_discriminator", "heads", "base_gain", "whitening"}
    assert list(content["filters"]) == list(FILTERS)
    assert {"optimisers", "schedules", "averaged", "random", "options", "settings"} < content.keys()


def same_weights(first, second):
    a, b = (load_checkpoint(path / "checkpoint.pt", "stig") for path in (first, second))
    assert a["step"] == b["step"]
    for part in ("model", "averaged"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    assert torch.equal(a["random"]["cpu"], b["random"]["cpu"])
    assert a["optimisers"]["generator"]["state"].keys() == b["optimisers"]["generator"]["state"].keys()


def test_stopped_and_resumed_equals_uninterrupted(run, monkeypatch, capsys):
    options = [*SMALL, "--base", "cepstral", "--dst", "stopped", "--sample_frequency", "2"]
    step = train.Trainer.train_step

    def stop_in_second(self, *images):
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, *images)

    monkeypatch.setattr(train.Trainer, "train_step", stop_in_second)
    with pytest.raises(SystemExit) as stop:
        train.main(options)
    assert stop.value.code == 130
    assert "--resume" in capsys.readouterr().out
    monkeypatch.setattr(train.Trainer, "train_step", step)
    monkeypatch.delattr(train, "fitted_filters")  # the checkpoint has them
    train.main([*options, "--resume"])
    same_weights(run, run.parent / "stopped")
    assert len((run.parent / "stopped/log.csv").read_text().splitlines()) == 5


def test_the_report_of_amp_is_of_what_inference_refines(run):
    train.main([*SMALL, "--dst", "amp", "--amp", "--lr", "0.02"])
    given = ["--inference_data", "datasets/tiny/fake", "--inference_params", "results/amp/checkpoint.pt"]
    inference.main([*given, "--dst", "amp_refined"])
    names = sorted(path.name for path in Path("results/amp_refined/refined").iterdir())
    assert len(names) == 4
    for name in names:
        shown, refined = (Image.open(f"results/{place}/{name}") for place in ("amp/eval/refined", "amp_refined/refined"))
        assert shown.tobytes() == refined.tobytes()


def interrupted(monkeypatch, capsys, main, arguments, owner, name, number=signal.SIGTERM):
    """Send a signal when `owner.name` is called; what the script says."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *_, **__: signal.raise_signal(number))
        with pytest.raises(SystemExit) as stop:
            main(arguments)
    assert stop.value.code == 130
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_interrupted_outside_of_its_steps(run, monkeypatch, capsys):
    options = [*SMALL, "--dst", "odd", *FINISHED]
    said = interrupted(monkeypatch, capsys, train.main, options, train, "fitted_filters", signal.SIGINT)
    assert said == "stopped; no file is half written, start the command again"
    assert not Path("results/odd").exists()
    said = interrupted(monkeypatch, capsys, train.main, options, train, "open_log")
    assert said == "stopped; every file in results/odd is whole, and the same command with --overwrite starts anew"
    said = interrupted(monkeypatch, capsys, train.main, [*options, "--overwrite"], report, "write_pictures")
    way_on = "--resume instead of --overwrite"
    assert said == f"stopped; every file in results/odd is whole, and the same command with {way_on} goes on"
    train.main([*options, "--resume"])
    same_weights(run, run.parent / "odd")
    assert (run.parent / "odd/table.json").read_bytes() == (run / "table.json").read_bytes()


def test_a_stop_asked_in_the_last_step_comes_before_the_evaluation(run, monkeypatch, capsys):
    save = train.save_checkpoint

    def stop_when_saving(path, kind, content):
        save(path, kind, content)
        if content["step"] == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train, "save_checkpoint", stop_when_saving)
    with pytest.raises(SystemExit) as stop:
        train.main([*SMALL, "--dst", "last", *FINISHED])
    assert stop.value.code == 130 and "stopped after step 4" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_and_resumed_equals_uninterrupted(run):
    options = [*SMALL, "--base", "cepstral", "--dst", "killed", "--save_frequency", "1"]
    command = [sys.executable, str(ROOT / "train.py"), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = run.parent / "killed"
    while process.poll() is None and not (folder / "checkpoint.pt").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert load_checkpoint(folder / "checkpoint.pt", "stig")["step"] < 4
    train.main([*options, "--resume"])
    same_weights(run, folder)


def test_non_finite_loss_keeps_the_last_good_checkpoint(monkeypatch, capsys):
    step = train.Trainer.train_step

    def break_in_third(self, *images):
        terms = step(self, *images)
        return terms | {"loss_g": terms["loss_g"] * float("nan")} if self.step == 3 else terms

    monkeypatch.setattr(train.Trainer, "train_step", break_in_third)
    often = ["--save_frequency", "2", "--sample_frequency", "3", "--log_frequency", "9"]
    assert "loss_g is not finite at step 3" in told(train.main, [*SMALL, "--dst", "nan", *often], capsys)
    assert load_checkpoint("results/nan/checkpoint.pt", "stig")["step"] == 2


def test_a_gpu_that_does_not_record_is_told(monkeypatch, capsys):
    def refuse(self, *images):
        raise train.NotRecorded("this GPU did not let a training step be recorded (why)")

    monkeypatch.setattr(train.Trainer, "train_step", refuse)
    assert "be recorded (why); give --cuda_graphs False" in told(train.main, [*SMALL, "--dst", "unrecorded"], capsys)


def test_what_a_killed_compilation_has_left_is_one_sentence():
    lost = type("InductorError", (Exception,), {"__module__": "torch._inductor.exc"})
    words = r"could not compile a part of the step \(file too short\); delete .*, where torch keeps"
    with pytest.raises(UserError, match=words), train.compiling():
        raise lost("file too short")
    with pytest.raises(KeyError), train.compiling():
        raise KeyError("ours")


def test_a_missing_compiler_is_told_before_the_training(monkeypatch, capsys):
    def broken(function):
        def call(*_):
            raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    command = [*SMALL, "--compile", "--dst", "uncompiled"]
    assert "(InvalidCxxCompiler: No working C++ compiler found); leave the option out" in refused(train.main, command, capsys)
    released = [*command, "--preset", "released"]
    assert "--compile has no effect with --norm batch --upsample bicubic" in refused(train.main, released, capsys)


def test_weights_that_are_no_numbers_are_not_saved(monkeypatch, capsys):
    step = train.Trainer.train_step

    def break_weights(self, *images):
        terms = step(self, *images)
        if self.step == 2:
            self.model.generator.final.bias.data.fill_(float("inf"))
        return terms

    monkeypatch.setattr(train.Trainer, "train_step", break_weights)
    said = told(train.main, [*SMALL, "--dst", "inf", "--save_frequency", "1"], capsys)
    assert "final.bias of the checkpoint is not finite at step 2" in said
    assert load_checkpoint("results/inf/checkpoint.pt", "stig")["step"] == 1


def test_released_preset_holdout_and_test_data(house):
    options = [*SMALL, "--preset", "released", "--holdout", "0.4", "--batch_size", "2", "--dst", "released"]
    train.main(options)
    images = json.loads(Path("results/released/images.json").read_text())
    assert images["counts"] == {"train_real": 3, "train_fake": 2, "holdout_real": 2, "holdout_fake": 2}
    assert not set(images["train_fake"]) & set(images["holdout_fake"])
    assert len(list(Path("results/released/eval/refined").iterdir())) == 2
    draw(house / "datasets/other/real", 2, 5)
    draw(house / "datasets/other/fake", 3, 6)
    train.main([*SMALL, "--test_data", "other", "--dst", "other", "--nce_levels", "0,4", "--norm", "batch"])
    assert len(list(Path("results/other/eval/refined").iterdir())) == 3
    assert "another data set" in Path("results/other/report.md").read_text()


@pytest.mark.usefixtures("drawn_figures")
def test_images_of_one_colour_and_equal_images_leave_finite_numbers(house):
    for side in ("real", "fake"):
        folder = house / "datasets/flat" / side
        folder.mkdir(parents=True)
        for value in (0, 255):
            Image.new("RGB", (32, 32), (value,) * 3).save(folder / f"{value}.png")
    train.main([*SMALL, "--data", "flat", "--base", "identity", "--lr", "1e-12", "--dst", "flat"])
    table = json.loads(Path("results/flat/table.json").read_text())
    numbers = [number for row in table.values() for number in row.values() if number is not None]
    assert np.isfinite(numbers).all()
    assert table["refined"]["psnr"] == 100  # nothing was changed


def test_bad_input_to_train(run, house, capsys):
    new = [*SMALL, "--dst", "new"]
    assert "datasets/none does not exist" in refused(train.main, [*new, "--data", "none"], capsys)
    (house / "datasets/file").touch()
    assert "datasets/file is not a folder" in refused(train.main, [*new, "--data", "file"], capsys)
    (house / "datasets/half/real").mkdir(parents=True)
    assert "half/real" in refused(train.main, [*new, "--data", "half"], capsys)
    assert "multiple of 16" in refused(train.main, [*new, "--size", "40"], capsys)
    assert "00.png" in refused(train.main, [*new, "--size", "64", "--fit", "none"], capsys)
    assert "exists already" in refused(train.main, [*SMALL, "--dst", "run"], capsys)
    assert "exists already" in refused(train.main, [*SMALL, "--dst", "run", "--data", "none"], capsys)  # before images are read
    assert "nothing to resume" in refused(train.main, [*SMALL, "--dst", "absent", "--resume"], capsys)
    assert "does not name a folder" in refused(train.main, [*SMALL, "--dst", "../out"], capsys)
    assert "--device" in refused(train.main, [*new, "--device", "99"], capsys)
    wrong = [*SMALL, "--dst", "run", "--resume", "--base", "cepstral", "--lr", "0.5"]
    assert "--lr is 0.5" in refused(train.main, wrong, capsys)
    manifest = (run / "images.json").read_text()
    (run / "images.json").unlink()
    assert "images.json is missing" in refused(train.main, [*SMALL, "--dst", "run", "--resume", *FINISHED], capsys)
    (run / "images.json").write_text(manifest)
    assert "give one" in refused(train.main, [*new, "--holdout", "0.5", "--test_data", "none"], capsys)
    draw(house / "datasets/one/real", 1, 1)
    draw(house / "datasets/one/fake", 1, 2)
    assert "--holdout" in refused(train.main, [*new, "--holdout", "0.9", "--data", "one"], capsys)


@pytest.mark.parametrize("test", [["--holdout", "0.2"], ["--test_data", "single"]])
def test_a_single_real_to_evaluate_on_has_no_floor(test, house, capsys):
    if not (house / "datasets/single").exists():
        draw(house / "datasets/single/real", 1, 1)
        draw(house / "datasets/single/fake", 2, 2)
    train.main([*SMALL, *test, "--dst", "single", "--overwrite"])
    shown = capsys.readouterr()
    assert "the table has no floor" in shown.err
    assert "nothing is called better or worse" in shown.out
    assert list(json.loads(Path("results/single/table.json").read_text())) == ["fake", *FILTERS, "refined"]


def broken_checkpoints(content):
    """Name -> content of a checkpoint of which one part was taken away, replaced or is of another size."""
    settings, model = content["settings"], content["model"]
    yield from ((f"without {part}", {k: v for k, v in content.items() if k != part}) for part in ("settings", "model", "averaged"))
    yield "settings of text", content | {"settings": "x"}
    for name, value in (("size", 33), ("size", 64), ("width", 16), ("mode", "other"), ("objective", {"nce_levels": [0], "x": 1})):
        yield f"{name} {value}", content | {"settings": settings | {name: value}}
    yield "gain", content | {"model": model | {"base_gain": torch.zeros(2)}}
    yield "empty model", content | {"model": {}}
    yield "kind alone", {"kind": "stig"}


def test_checkpoints_that_do_not_fit_are_named(run, house, capsys):
    content = load_checkpoint(run / "checkpoint.pt", "stig")
    fakes = ["--inference_data", "datasets/tiny/fake", "--device", "cpu", "--dst", "new", "--inference_params", "broken.pt"]
    for name, broken in broken_checkpoints(content):
        torch.save(broken, "broken.pt")
        error = refused(inference.main, fakes, capsys)
        assert "broken.pt is damaged or" in error and "--overwrite" in error, name
    torch.save({k: v for k, v in content.items() if k != "filters"}, "broken.pt")
    assert "filters" in refused(inference.main, [*fakes, "--method", "linear"], capsys)
    whole = (run / "checkpoint.pt").read_bytes()
    wrong_step = {side: state | {"last_epoch": "x"} for side, state in content["schedules"].items()}
    wrong = (("model", {}), ("optimisers", {}), ("random", {}), ("options", "text"), ("step", "x"), ("schedules", wrong_step))
    for part, value in wrong:
        torch.save(content | {part: value}, run / "checkpoint.pt")
        error = refused(train.main, [*SMALL, "--dst", "run", "--resume", *FINISHED], capsys)
        assert "run/checkpoint.pt is damaged or" in error, part
    for options, words in ((content["options"] | {"unknown": 1}, "has unknown"), ({}, "lacks amp")):
        torch.save(content | {"options": options}, run / "checkpoint.pt")
        error = refused(train.main, [*SMALL, "--dst", "run", "--resume", *FINISHED], capsys)
        assert "another command or version" in error and words in error
    (run / "checkpoint.pt").write_bytes(whole)


def test_truncated_image_is_named_and_can_be_skipped(house, capsys):
    draw(house / "datasets/cut/real", 3, 1)
    draw(house / "datasets/cut/fake", 3, 2)
    path = house / "datasets/cut/fake/01.png"
    path.write_bytes(path.read_bytes()[:200])
    assert "01.png" in refused(train.main, [*SMALL, "--data", "cut", "--dst", "cut"], capsys)
    train.main([*SMALL, "--data", "cut", "--dst", "cut", "--skip_bad"])
    assert "01.png" in capsys.readouterr().err
    assert len(list(Path("results/cut/eval/refined").iterdir())) == 2


@pytest.mark.skipif(os.name == "nt", reason="needs file size limits")
def test_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(house):
    import resource  # not on Windows

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))

    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "--dst", "full", "--save_frequency", "1"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list(Path("results/full").glob("*.pt*")) + list(Path("results/full").glob(".*"))


def test_inference_keeps_names_order_and_count(run, house):
    source = house / "more"
    draw(source / "b", 2, 7)
    draw(source / "a", 1, 8)
    (source / "a/00.png").rename(source / "a/photo.x.PNG")
    base = ["--inference_data", "more", "--inference_params", str(run / "checkpoint.pt"), "--device", "cpu"]
    inference.main([*base, "--dst", "two", "--batch_size", "2", "--save_mag"])
    inference.main([*base, "--dst", "one", "--batch_size", "1"])
    names = sorted(str(path.relative_to("results/two/refined")) for path in Path("results/two/refined").rglob("*.png"))
    assert names == ["a/photo.x.png", "b/00.png", "b/01.png"]
    assert len(list(Path("results/two/refined_mag").rglob("*.png"))) == 3
    for name in names:
        one, two = (np.asarray(Image.open(Path("results") / dst / "refined" / name)).astype(int) for dst in ("one", "two"))
        assert np.abs(one - two).max() <= 1  # alone = batched, up to rounding to 8 bits


def test_inference_interrupted_half_way(run, house, monkeypatch, capsys):
    command = ["--inference_data", "datasets/tiny/fake", "--inference_params", str(run / "checkpoint.pt"), "--dst", "half"]
    command += ["--batch_size", "2", "--device", "cpu"]
    written = []

    def second(path, image):
        if len(written) == 1:
            signal.raise_signal(signal.SIGINT)
        written.append(write_png(path, image))

    with monkeypatch.context() as patch:
        patch.setattr(result_files, "write_png", second)
        with pytest.raises(SystemExit) as stop:
            inference.main(command)
    assert stop.value.code == 130
    assert "results/half is whole, and the same command with --resume goes on" in capsys.readouterr().err
    assert [path.name for path in Path("results/half/refined").iterdir()] == ["00.png"]
    assert "give the same options to resume" in refused(inference.main, [*command, "--resume", "--method", "linear"], capsys)
    first = Path("results/half/refined/00.png")
    before = first.stat().st_mtime_ns
    inference.main([*command, "--resume", "--batch_size", "3"])
    assert first.stat().st_mtime_ns == before
    whole = first.read_bytes()
    for damaged in (b"", whole[:-20], b"a diary"):  # as a machine may leave that lost its power
        first.write_bytes(damaged)
        inference.main([*command, "--resume"])
        assert first.read_bytes() == whole
    started = Path("results/half/options.json")
    content = started.read_text()
    started.write_text("")
    assert "start again with --overwrite" in refused(inference.main, [*command, "--resume"], capsys)
    started.write_text(content)
    inference.main([*command, "--dst", "at_once"])
    for path in sorted(Path("results/at_once/refined").iterdir()):
        found = (np.asarray(Image.open(place / path.name)).astype(int) for place in (path.parent, first.parent))
        assert np.abs(next(found) - next(found)).max() <= 1
    assert len(list(first.parent.iterdir())) == 4
    inference.main([*command, "--overwrite"])
    assert first.stat().st_mtime_ns > before


def test_resumed_inference_mixes_no_refiners_and_sees_images_that_changed(run, house, capsys):
    shutil.copytree("datasets/tiny/fake", "drawn")
    shutil.copy(run / "checkpoint.pt", "refiner.pt")
    command = ["--inference_data", "drawn", "--inference_params", "refiner.pt", "--dst", "mixed", "--device", "cpu"]
    inference.main(command)
    before = {path.name: path.read_bytes() for path in Path("results/mixed/refined").iterdir()}
    shutil.copy("drawn/01.png", "drawn/00.png")
    os.utime("drawn/00.png", (1, 1))  # as a copy that keeps the time of its content
    inference.main([*command, "--resume"])
    after = {path.name: path.read_bytes() for path in Path("results/mixed/refined").iterdir()}
    assert [name for name, content in after.items() if content != before[name]] == ["00.png"]
    assert after["00.png"] == after["01.png"]
    shutil.copy("refiner.pt", "moved.pt")
    inference.main(
        ["--inference_data", "drawn/", "--inference_params", "moved.pt", *command[4:], "--resume"]
    )  # the same, by other names
    content = load_checkpoint("refiner.pt", "stig")
    weights = content["averaged"]
    name = next(name for name in weights if name.endswith("weight"))
    weights[name] = weights[name] + 0.01
    save_checkpoint("refiner.pt", "stig", content)
    assert "was begun by another refiner" in refused(inference.main, [*command, "--resume"], capsys)
    fitted = "--inference_data drawn --method linear --real datasets/tiny/real --fake drawn --device cpu --dst fitted_then"
    inference.main(fitted.split())
    shutil.copy("drawn/02.png", "drawn/04.png")
    assert "the images it is fitted on changed" in refused(inference.main, [*fitted.split(), "--resume"], capsys)


def test_resumed_inference_keeps_no_results_of_other_names(run, house, capsys):
    shutil.copytree("datasets/tiny/fake", "growing")
    command = ["--inference_data", "growing", "--inference_params", str(run), "--dst", "growing", "--device", "cpu"]
    inference.main(command)
    for name in ("new.png", "sub.png/new.png"):
        Path("growing", name).parent.mkdir(exist_ok=True)
        shutil.copy("growing/01.png", f"growing/{name}")
    for _ in range(2):
        inference.main([*command, "--resume"])  # two more, one of them in a folder with a name like an image's
    Path("results/growing/refined/.00.0123.tmp.png").touch()  # what a killed process was writing
    inference.main([*command, "--resume"])
    Image.open("growing/00.png").save("growing/00.bmp")  # now 00.png is called 00.png.png
    told = refused(inference.main, [*command, "--resume"], capsys)
    assert "results/growing/refined holds images (1, the first: 00.png) that would not be made of what is in growing now" in told


def test_resumed_inference_sees_another_folder_of_the_same_names(run, house, capsys):
    shutil.copytree("datasets/tiny/fake", "given")
    draw(Path("exchanged"), 4, 99)
    command = ["--inference_data", "given", "--inference_params", str(run), "--dst", "given", "--device", "cpu"]
    inference.main(command)
    Path("given").rename("given_before")
    Path("exchanged").rename("given")
    told = refused(inference.main, [*command, "--resume"], capsys)
    assert "results/given was begun on other images than those that are in given now" in told


def test_images_that_the_refiner_was_made_with_are_told(house, capsys):
    """Of a checkpoint those trained on, held-out ones not; of a filter those fitted on; wherever they lie."""
    train.main([*SMALL, "--holdout", "0.5", "--dst", "half_seen", "--epoch", "1"])
    assert "These are the images trained on" not in Path("results/half_seen/report.md").read_text()
    shutil.copytree("datasets/tiny/fake", "elsewhere/fake")
    fitted = ["--method", "linear", "--real", "datasets/tiny/real", "--fake", "datasets/tiny/fake"]
    for number, given in enumerate((["--inference_params", "results/half_seen"], fitted)):
        for place in ("datasets/tiny/fake", "elsewhere/fake"):
            capsys.readouterr()
            inference.main([*given, "--inference_data", place, "--dst", "seen", "--device", "cpu", "--overwrite"])
            assert f"the refiner was made with {(2, 4)[number]} of the 4 images to refine" in capsys.readouterr().err
            (said,) = seen_by_refiner(Path("results/seen/refined"))
            assert f"was made with {(2, 4)[number]} of the images that it refined" in said
    assert seen_by_refiner(Path("results/seen/refined/sub")) and not seen_by_refiner(Path("results/seen"))
    trained = ["--inference_params", "results/half_seen", "--inference_data", "elsewhere/fake", "--dst", "seen", "--device", "cpu"]
    inference.main([*trained, "--overwrite"])
    shutil.move("results/half_seen/images.json", "images.json")
    inference.main([*trained, "--resume"])  # what is known already is not forgotten
    shutil.move("images.json", "results/half_seen/images.json")
    assert "was made with 2 of" in seen_by_refiner(Path("results/seen/refined"))[0]
    capsys.readouterr()
    for text in ("[1]", "{}", '{"seen": 3}', '{"refiner": "x"}'):
        Path("results/seen/options.json").write_text(text)
        assert not seen_by_refiner(Path("results/seen/refined"))
    for name, text in (("images.json", "[]"), ("images.json", '{"train_fake": 3}'), ("options.json", "x"), ("options.json", "{}")):
        whole = Path("results/half_seen", name).read_text()
        Path("results/half_seen", name).write_text(text)
        command = ["--inference_params", "results/half_seen", "--inference_data", "datasets/tiny/fake", "--dst", "unknown"]
        inference.main([*command, "--device", "cpu", "--overwrite"])
        assert "was made with" not in capsys.readouterr().err
        Path("results/half_seen", name).write_text(whole)
    for path in Path("elsewhere/fake").iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    inference.main([*fitted, "--inference_data", "elsewhere/fake", "--dst", "seen", "--device", "cpu", "--overwrite"])
    assert "was made with" not in capsys.readouterr().err and not seen_by_refiner(Path("results/seen/refined"))


def test_inference_takes_the_folder_of_a_run_and_tells_of_images_that_were_refined(run, house, capsys):
    command = ["--inference_params", str(run), "--device", "cpu", "--dst"]
    inference.main([*command, "whole_run", "--inference_data", "datasets/tiny/fake"])
    assert "refined already" not in capsys.readouterr().err
    for dst, folder in (("twice", "results/whole_run/refined"), ("thrice", str(run / "eval/refined"))):
        inference.main([*command, dst, "--inference_data", folder])
        assert "holds images that were refined already" in capsys.readouterr().err


def test_a_filter_of_eighths_is_fitted_kept_and_used(house, capsys):
    train.main([*SMALL, "--dst", "eighths", "--period", "8"])
    filters = load_checkpoint("results/eighths/checkpoint.pt", "stig")["filters"]
    assert filters["polyphase"]["polyphase"].shape[2] == 64
    data, fitted = ["--inference_data", "datasets/tiny/fake", "--device", "cpu"], ["--method", "polyphase"]
    given = [*fitted, "--real", "datasets/tiny/real", "--fake", "datasets/tiny/fake"]
    trained = ["--inference_params", "results/eighths"]
    for dst, how in (
        ("by_network", trained),
        ("by_filter", [*trained, *fitted]),
        ("fitted_8", [*given, "--period", "8"]),
        ("fitted_4", given),
    ):
        inference.main([*data, *how, "--dst", dst])
    pictures = {dst: Path(f"results/{dst}/refined/00.png").read_bytes() for dst in ("by_filter", "fitted_8", "fitted_4")}
    assert pictures["by_filter"] == pictures["fitted_8"] != pictures["fitted_4"]
    for how in ([*trained, *fitted], [*given[:1], "linear", *given[2:]]):
        assert "--period: has no effect" in refused(inference.main, [*data, *how, "--period", "8", "--dst", "no"], capsys)
    assert "give the same options to resume" in refused(inference.main, [*data, *given, "--dst", "fitted_8", "--resume"], capsys)


def test_inference_refines_as_training_did(run):
    options = ["--inference_data", "datasets/tiny/fake", "--inference_params", str(run / "checkpoint.pt"), "--device", "cpu"]
    for dst, method, expected in (("again", "stig", "refined"), ("filtered", "polyphase", None)):
        inference.main([*options, "--dst", dst, "--method", method, "--overwrite"])
        if expected:
            for path in (run / "eval" / expected).iterdir():
                ours = np.asarray(Image.open(Path("results") / dst / "refined" / path.name)).astype(int)
                assert np.abs(ours - np.asarray(Image.open(path))).max() <= 1
    fitted = ["--method", "polyphase", "--real", "datasets/tiny/real", "--fake", "datasets/tiny/fake"]  # at the images' own size
    inference.main(["--inference_data", "datasets/tiny/fake", *fitted, "--dst", "fitted", "--device", "cpu"])
    for path in Path("results/filtered/refined").iterdir():
        assert np.array_equal(Image.open(path), Image.open(Path("results/fitted/refined") / path.name))


def test_inference_with_a_released_checkpoint(house, run, capsys):
    folder = house / "released"
    folder.mkdir()
    torch.save(golden_weights("generator"), folder / "Generator.pt")
    options = ["--inference_data", "datasets/tiny/fake", "--inference_params", "released", "--size", "32", "--device", "cpu"]
    inference.main([*options, "--dst", "from_released"])
    assert len(list(Path("results/from_released/refined").iterdir())) == 4
    other = golden_weights("generator")
    torch.save(
        {name: value + 0.01 if value.is_floating_point() else value for name, value in other.items()}, folder / "Generator_5.pt"
    )
    assert "holds 2 files called Generator" in refused(inference.main, [*options, "--dst", "which"], capsys)
    for name, dst in (("Generator.pt", "named"), ("Generator_5.pt", "fifth")):
        inference.main([*options, "--inference_params", f"released/{name}", "--dst", dst])
    one, named, fifth = (
        json.loads(Path(f"results/{dst}/options.json").read_text())["refiner"] for dst in ("from_released", "named", "fifth")
    )
    assert one == named != fifth


def test_bad_input_to_inference(run, house, capsys):
    base = ["--inference_data", "datasets/tiny/fake", "--dst", "bad", "--device", "cpu"]
    checkpoint = run / "checkpoint.pt"
    (house / "evil.pt").write_bytes(pickle.dumps(Trap("executed")))
    assert "--inference_params" in refused(inference.main, base, capsys)
    assert "does not exist" in refused(inference.main, [*base, "--inference_params", "absent.pt"], capsys)
    assert "execute code" in refused(inference.main, [*base, "--inference_params", "evil.pt"], capsys)
    assert not Path("executed").exists()
    assert "trained at 32 px" in refused(inference.main, [*base, "--inference_params", checkpoint, "--size", "64"], capsys)
    assert "absent" in refused(inference.main, [*base, "--inference_data", "absent", "--inference_params", checkpoint], capsys)
    assert "--method" in refused(inference.main, [*base, "--real", "a", "--fake", "b"], capsys)
    assert "Generator" in refused(inference.main, [*base, "--inference_params", run / "eval"], capsys)
    again = [*base[:2], "--dst", "run", "--inference_params", checkpoint]
    assert "was written by another command" in refused(inference.main, [*again, "--resume"], capsys)
    assert "would delete" in refused(inference.main, [*again, "--overwrite"], capsys)
    shutil.copytree("datasets/tiny/fake", "results/around/inside")
    around = [*again[2:], "--inference_data", "results/around", "--dst", "around/inside", "--overwrite"]
    assert "a part of results/around" in refused(inference.main, around, capsys)
    assert len(list(Path("results/around/inside").iterdir())) == len(list(Path("datasets/tiny/fake").iterdir()))
    within = [*again[2:], "--inference_data", "results/around", "--dst", "around/new"]
    assert "results/around/new lies in results/around, which is read" in refused(inference.main, within, capsys)
    assert "argument --inference_data: it is empty" in refused(inference.main, [*again[2:], "--inference_data", ""], capsys)
    both = [*base, "--method", "linear", "--real", "datasets/tiny/real", "--fake", "datasets/tiny/fake"]
    assert "give one or the other" in refused(inference.main, [*both, "--inference_params", checkpoint], capsys)
    assert checkpoint.exists()
    content = load_checkpoint(checkpoint, "stig")
    content["model"]["generator.final.bias"][1] = float("nan")
    save_checkpoint("nan.pt", "stig", content)
    message = refused(inference.main, [*base, "--inference_params", "nan.pt"], capsys)
    assert "nan.pt" in message and "model.generator.final.bias" in message


def test_filter_of_folders_works_at_the_size_of_all_images_or_of_size(run, house, capsys):
    for folder, width, height in (("wide", 48, 32), ("odd", 40, 40), ("small", 16, 16)):
        Path(folder).mkdir()
        for name in "ab":
            Image.new("RGB", (width, height)).save(f"{folder}/{name}.png")
    words = "--method linear --real datasets/tiny/real --fake datasets/tiny/fake --dst own_size --device cpu"
    command = words.split()
    for folder, problem in (("wide", "wide/a.png is 48 x 32"), ("odd", "no multiple of 16"), ("small", "is 32 x 32")):
        others = ["--real", folder, "--fake", folder] if folder == "odd" else []
        message = refused(inference.main, [*command, "--inference_data", folder, *others], capsys)
        assert problem in message and "--size" in message
    assert not Path("results/own_size").exists()
    inference.main([*command, "--inference_data", "wide", "--size", "32", "--fit", "crop"])
    assert Image.open("results/own_size/refined/a.png").size == (32, 32)


def test_names_too_long_for_a_disk_stop_before_anything_is_deleted(run, house, capsys):
    folder = house / "long"
    folder.mkdir()
    for suffix in (".bmp", ".png"):  # each keeps its own suffix beside .png
        Image.new("RGB", (32, 32)).save(folder / f"{'x' * 250}{suffix}")
    Path("results/long").mkdir()
    Path("results/long/kept").touch()
    words = "--inference_data long --dst long --overwrite --device cpu --inference_params"
    assert "255 bytes" in refused(inference.main, [*words.split(), run / "checkpoint.pt"], capsys)
    assert Path("results/long/kept").exists()


def test_the_rate_does_not_count_pictures_and_checkpoints(monkeypatch):
    now = itertools.count()
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: next(now)))

    def slow(function):
        return lambda *arguments: (function(*arguments), [next(now) for _ in range(1000)])

    monkeypatch.setattr(train, "save_run", slow(train.save_run))
    monkeypatch.setattr(train.Monitor, "show", slow(train.Monitor.show))
    paced = ["--log_frequency", "1", "--save_frequency", "2", "--sample_frequency", "3"]
    train.main([*SMALL, "--base", "linear", "--dst", "paced", *paced])
    with Path("results/paced/log.csv").open() as file:
        assert [row["images_per_s"] for row in csv.DictReader(file)] == 4 * ["1"]


def test_pictures_of_images_that_are_no_longer_evaluated_go(run):
    draw(Path("datasets/shrinking/real"), 4, 3)
    draw(Path("datasets/shrinking/fake"), 4, 4)
    command = [*SMALL, "--test_data", "shrinking", "--base", "linear", "--dst", "shrunk"]
    train.main(command)
    for side in ("real", "fake"):
        Path(f"datasets/shrinking/{side}/03.png").unlink()
    train.main([*command, "--resume"])
    assert {len(list(folder.iterdir())) for folder in Path("results/shrunk/eval").iterdir()} == {3}


def test_inference_tells_what_it_passes_over(run, capsys):
    """Links to folders, which may lead in a circle, and formats that are not read; a pipe does not stop it for ever."""
    shutil.copytree("datasets/tiny/fake", "mixed/sub")
    Path("mixed/linked").symlink_to(Path("datasets/tiny/real").resolve())
    Path("mixed/moving.gif").touch()
    Path("mixed/._moving.gif").touch()  # a Mac's
    Path("mixed/.trash").symlink_to(Path("datasets/tiny/real").resolve())
    if hasattr(os, "mkfifo"):
        os.mkfifo("mixed/pipe.png")
        Path("mixed/to_pipe.png").symlink_to("pipe.png")
    command = ["--inference_params", str(run / "checkpoint.pt"), "--dst", "over", "--device", "cpu"]
    inference.main([*command, "--inference_data", "mixed"])
    told = capsys.readouterr().err
    assert "links to folders (1, the first: mixed/linked) and files of other formats (1, the first: mixed/moving.gif)" in told
    inference.main([*command, "--inference_data", "mixed/sub", "--overwrite"])
    assert "passed over" not in capsys.readouterr().err


def test_training_spares_the_images_it_reads(capsys):
    shutil.copytree("datasets/tiny/fake", "results/own/refined")
    Path("datasets/linked").mkdir()
    Path("datasets/linked/real").symlink_to(Path("datasets/tiny/real").resolve())
    Path("datasets/linked/fake").symlink_to(Path("results/own/refined").resolve())
    command = [*SMALL, "--data", "linked", "--dst", "own", "--overwrite"]
    assert "would delete datasets/linked/fake, which this command reads" in refused(train.main, command, capsys)
    test_data = [*SMALL, "--test_data", "linked", "--dst", "own", "--overwrite"]
    assert "would delete datasets/linked/fake" in refused(train.main, test_data, capsys)
    assert Path("results/own/refined").is_dir()
    assert "has the real images of --data" in refused(train.main, [*test_data, "--dst", "other"], capsys)


def test_before_an_older_run_is_deleted_an_interruption_says_to_start_again(run, monkeypatch, capsys):
    shutil.copytree(run, "results/older")
    said = interrupted(monkeypatch, capsys, train.main, [*SMALL, "--dst", "older", "--overwrite"], train, "training_sets")
    assert said == "stopped; every file in results/older is whole, and the same command with --overwrite starts anew"
    assert Path("results/older/checkpoint.pt").read_bytes() == (run / "checkpoint.pt").read_bytes()


def test_a_run_that_was_moved_goes_on(run):
    shutil.copytree(run, "results/moved")
    train.main([*SMALL, "--dst", "moved/", *FINISHED, "--resume"])


def test_small_differences_are_not_called_better():
    same = dict.fromkeys(("lfd", "gap", "gap_upper", "logreg", "coherence"), 1.0)
    table = {"fake": same | {"lfd": 2.0, "gap": None}, "linear": same | {"gap": 0.5}, "refined": same | {"lfd": 0.95}}
    table["cepstral"] = same | {"lfd": 0.5}
    sentences = report.verdict(table, report.NEARLY, "cepstral")
    assert "Against the fakes, refined is better in LFD; about the same in the upper-half gap, the fresh logreg" in sentences
    assert "Against the plain filter (`linear`), refined is about the same in LFD, the upper-half gap" in sentences
    assert "; worse in the profile gap. Against the filter that training starts from (`cepstral`), refined is" in sentences
    assert sentences.endswith(
        "worse in LFD. Training made it worse: `--method cepstral` of `inference.py` refines by the filter alone."
    )
    without = report.verdict(table, report.NEARLY)  # from nothing
    assert sentences.startswith(without) and "network" not in without
    assert report.verdict(table, report.NEARLY, "linear").startswith(f"{without} Training made it worse: `--method linear`")
    table["cepstral"]["gap_upper"] = 2.0  # better there
    assert "network" not in report.verdict(table, report.NEARLY, "cepstral")


def test_few_images_say_little():
    def least(reals, fakes=None):
        rows = {}
        for name, count in (("real", reals), ("fake", fakes or reals)):
            rows[name] = report.ReportRow(range(count))
            contrast = torch.linspace(0.02, 1, count)[:, None, None, None]
            rows[name].update(contrast * torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
        return report.least_differences(rows), rows["real"].spectra

    assert least(1)[0] == least(3)[0] == {}
    few, spectra = least(4)
    low, high = spectra.floor()["lfd_spread"]
    assert few["lfd"] == pytest.approx((high - low) / 4) and few["lfd"] > report.NEARLY["lfd"]
    assert few["logreg"] == pytest.approx(2 * np.sqrt(0.25 / 8))
    assert least(300)[0]["logreg"] == report.NEARLY["logreg"]
    assert least(4, 100)[0]["logreg"] == pytest.approx(np.sqrt(1 / 4 + 1 / 100) / 2)
    assert "nothing is called better or worse" in report.verdict({}, {})


def test_less_than_chance_is_not_called_better():
    row = dict.fromkeys(("lfd", "gap", "gap_upper", "coherence"), 1.0)
    table = {name: row | {"logreg": value} for name, value in (("fake", 0.9), ("linear", 0.2), ("refined", 0.5))}
    sentences = report.verdict(table, report.NEARLY)
    assert "the same in LFD, the profile gap, the upper-half gap, the fresh logreg, the fresh coherence." in sentences


def test_inference_reads_images_as_the_training_did(run, house, capsys):
    """The run was trained with --fit resize; an unset --fit is the checkpoint's, another one is told."""
    command = ["--inference_params", str(run / "checkpoint.pt"), "--inference_data", "datasets/tiny/fake", "--device", "cpu"]
    content = load_checkpoint(run / "checkpoint.pt", "stig")
    content["options"]["fit"] = "crop"
    save_checkpoint("cropped.pt", "stig", content)
    inference.main([*command, "--inference_params", "cropped.pt", "--dst", "as_trained"])
    assert json.loads(Path("results/as_trained/options.json").read_text())["fit"] == "crop"
    assert "--fit crop" not in capsys.readouterr().err
    inference.main([*command, "--inference_params", "cropped.pt", "--fit", "resize", "--dst", "otherwise"])
    assert "was made with --fit crop" in capsys.readouterr().err
    for folder, words in (("datasets/tiny", "holds real/ and fake/"), (run, "is a run, with pictures of several kinds")):
        told = refused(inference.main, [*command, "--inference_data", str(folder), "--dst", "x"], capsys)
        assert words in told and told.strip().endswith("that is meant")


def test_photographs_that_are_to_be_refined_are_told(capsys):
    given = "--method linear --real datasets/tiny/real --fake datasets/tiny/fake --size 32 --device cpu"
    inference.main([*given.split(), "--inference_data", "datasets/tiny/real", "--dst", "of_photographs"])
    assert "datasets/tiny/real holds the photographs" in capsys.readouterr().err
    inference.main([*given.split(), "--inference_data", "datasets/tiny/fake", "--dst", "of_fakes"])
    assert "holds the photographs" not in capsys.readouterr().err
    told = refused(inference.main, [*given.split(), "--inference_data", "datasets", "--dst", "of_all"], capsys)
    assert "holds real/ and fake/" in told and not Path("results/of_all").exists()


def test_images_that_changed_are_told_by_every_resume(house, capsys):
    shutil.copytree("datasets/tiny", "datasets/changing")
    command = [*SMALL, "--data", "changing", "--dst", "changing", "--base", "linear"]
    train.main(command)
    shutil.copy("datasets/tiny/real/00.png", "datasets/changing/real/01.png")
    capsys.readouterr()
    for _ in range(2):
        train.main([*command, "--resume"])
        assert "the real images are other files than when the run began" in capsys.readouterr().err


def test_one_folder_is_not_both_classes(capsys):
    for side in ("real", "fake"):
        place = Path("datasets/mirror") / side
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path("datasets/tiny/real").resolve(), target_is_directory=True)
    assert "is given for both classes" in refused(train.main, [*SMALL, "--data", "mirror", "--dst", "mirror"], capsys)
    given = (
        "--method linear --inference_data datasets/tiny/fake --real datasets/tiny/real --fake datasets/tiny/real --size 32 --dst no"
    )
    assert "is given for both classes" in refused(inference.main, given.split(" "), capsys)


def test_a_loss_without_terms_is_refused(capsys):
    terms = ("gan", "psd", "nce", "identity", "fake_identity", "lf")
    zeros = [part for term in terms for part in (f"--lambda_{term}", "0")]
    assert "leaves no loss" in refused(train.main, [*SMALL, *zeros, "--dst", "no"], capsys)


def test_images_that_are_no_numbers_are_not_written(tmp_path):
    image = torch.full((2, 3, 4, 4), 0.5)
    image[1, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="would not consist of numbers"):
        write_pictures(tmp_path, "refined", ["a.png", "b.png"], image)
    assert not list(tmp_path.iterdir())


def test_cutting_without_being_asked_is_told(capsys):
    train.main([*SMALL, "--size", "16", "--fit", "crop", "--dst", "small_cut"])
    given = ["--inference_data", "datasets/tiny/fake", "--inference_params", "results/small_cut/checkpoint.pt", "--device", "cpu"]
    capsys.readouterr()
    inference.main([*given, "--dst", "small_cut_told"])
    assert "images are cut to their centre, 16 x 16" in capsys.readouterr().err
    inference.main([*given, "--dst", "small_cut_asked", "--fit", "crop"])
    assert "cut to their centre" not in capsys.readouterr().err
