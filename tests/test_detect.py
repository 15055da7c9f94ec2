"""detect.py from end to end on small images: every classifier, the protocol, resuming, refusals, before and after, features."""

import csv
import dataclasses
import functools
import json
import math
import os
import pickle
import re
import shutil
import signal
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import TINY_VIT, Trap, contents, told

import detect
import detect_commands.bench as bench_module
import detect_commands.detect as detect_mode
import models.detectors as detectors
from data.copies import seen_by_refiner
from data.folder import load_folder
from detect_commands import before_after, image_sets, records, training
from detect_commands.common import judge_rows
from detect_commands.image_sets import ImageSet, filters_between, open_sets
from detect_commands.options import parse_detect
from detect_commands.protocol import _is_version, _mostly_versions, draw_samples, split_names, unseen
from detect_commands.report import Judged, summary, told_few, write_before_after
from models.classical_detectors import CLASSICAL
from utils import filter_fitting, run_dir
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.decay import decay_features
from utils.detection import MEASURES
from utils.distributed import Processes
from utils.errors import UserError
from utils.files import write_json
from utils.filters import fit_filters
from utils.measure import evenly_spaced
from utils.perturbations import PERTURBATIONS
from utils.profiles import log_profile

pytestmark = pytest.mark.usefixtures("quick_figures")
COUNT, SIZE = 24, 32


def photograph(seed, size=SIZE):
    """Smooth noise: (size, size, 3) uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    spectrum = np.fft.fft2(generator.normal(size=(3, size, size))) / (np.hypot(rows, columns) + 0.03) ** 1.2
    image = np.fft.ifft2(spectrum).real
    image = (image - image.mean()) / image.std() * 40 + 128
    return np.moveaxis(image, 0, 2).clip(0, 255).astype(np.uint8)


def generated(seed, strength=24, size=SIZE):
    """The same with the checkerboard of a transposed convolution."""
    board = (np.indices((size, size)).sum(0) % 2 * 2 - 1)[..., None] * strength
    return (photograph(seed, size).astype(int) + board).clip(0, 255).astype(np.uint8)


def write_folder(folder, images, suffix=".png", **options):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}{suffix}", **options)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A working directory with results/run/eval/{real,fake,refined}; refined fakes have lost the checkerboard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detectors, "VIT", TINY_VIT)
    folder = Path("results/run/eval")
    write_folder(folder / "real", [photograph(i) for i in range(COUNT)])
    write_folder(folder / "fake", [generated(1000 + i) for i in range(COUNT)])
    write_folder(folder / "refined", [photograph(1000 + i) for i in range(COUNT)])
    return folder


def table(path):
    """runs.csv -> dict (generator, perturbation, measure) -> row."""
    with Path(path).open(newline="") as file:
        return {(row["generator"], row["perturbation"], row["measure"]): row for row in csv.DictReader(file)}


NONE = {"train": [], "validation": [], "test": []}


def plain(text):
    """Tables without the blanks that align their columns."""
    return re.sub(" +", " ", text)


def refused(capsys, *arguments):
    """Run detect.py, expect exit code 2, return what it said."""
    return told(detect.main, arguments, capsys)


CHEAP = {
    "cnn": ["--class_epoch", "2", "--class_batch_size", "8"],
    "cnn_whitened": ["--class_epoch", "2", "--class_batch_size", "8"],
    "vit": ["--class_epoch", "2", "--class_batch_size", "8", "--vit_weights", "none"],
    "resnet50": ["--class_epoch", "1", "--class_batch_size", "16", "--resnet_weights", "none", "--split", "0.5"],
    "knn": ["--runs", "2", "--split", "0.5"],
    "svm": ["--runs", "2", "--split", "0.5"],
    "mlp": ["--runs", "1", "--split", "0.5"],
    "logreg": ["--runs", "2", "--split", "0.5"],
    "coherence": ["--runs", "2", "--split", "0.5"],
    "coherence8": ["--runs", "2", "--split", "0.5"],
}


@pytest.mark.parametrize("classifier", CHEAP)
@pytest.mark.usefixtures("drawn_figures")
def test_every_classifier_end_to_end(run, classifier, capsys):
    arguments = ["--classifier", classifier, "--device", "cpu", "--size", str(SIZE), "--dst", "run"]
    detect.main(["--is_train", "True", *arguments, *CHEAP[classifier]])
    home = Path(f"results/run/{classifier}_classifier")
    runs = 2 if CHEAP[classifier][:2] == ["--runs", "2"] else 1
    assert len(list(home.glob("run_*/detector.pt"))) == runs
    assert not list(home.glob("run_*/last.pt")) and not list(home.glob("run_*/best.pt"))
    trained = table(home / "runs.csv")
    assert {key[2] for key in trained} == set(MEASURES) and {key[0] for key in trained} == {"eval/fake"}
    assert [name for name in trained["eval/fake", "none", "auc"] if name.startswith("run_")] == [f"run_{i}" for i in range(runs)]
    for row in json.loads((home / "scores.json").read_text())["rows"]:
        for side in ("real", "fake"):
            assert len(row["names"][side]) == len(row[f"{side}_scores"])
            assert {*row["names"][side]} <= {path.name for path in (run / side).iterdir()}
    assert (home / "curves.png").stat().st_size > 1000 and json.loads((home / "options.json").read_text())["dst"] == "run"
    if classifier in CLASSICAL and not classifier.startswith(
        "coherence"
    ):  # a board that is added has nothing to do with frequencies below
        assert float(trained["eval/fake", "none", "auc"]["mean"]) > 0.9
        rates = [float(trained["eval/fake", "none", f"{side}_right_at_threshold"]["mean"]) for side in ("real", "fake")]
        assert min(rates) > 0.6 and sum(rates) > 1.5
    detect.main(["--is_train", "False", *arguments, "--eval_root", str(run / "refined")])
    again = table(home / "runs.csv")
    assert again["eval/fake", "none", "auc"] == trained["eval/fake", "none", "auc"]
    assert ("eval/refined", "none", "balanced_accuracy") in again
    capsys.readouterr()


@pytest.mark.parametrize("classifier", ["cnn", "logreg"])
@pytest.mark.usefixtures("drawn_figures")
def test_robustness(run, classifier):
    detect.main(["--classifier", classifier, "--dst", "run", "--robustness", *CHEAP[classifier]])
    home = Path(f"results/run/{classifier}_classifier")
    found = table(home / "runs.csv")
    assert {key[1] for key in found} == set(PERTURBATIONS)
    assert (home / "robustness.png").stat().st_size > 1000 and "| jpeg 75 |" in plain((home / "evaluation.md").read_text())
    if classifier == "logreg":  # half the size loses the checkerboard
        auc = {name: float(found["eval/fake", name, "auc"]["mean"]) for name in PERTURBATIONS}
        assert auc["none"] > 0.9 and auc["resize 0.5"] < auc["none"] - 0.1


def test_numbers_are_of_images_outside_the_training_part(run):
    detect.main(["--classifier", "logreg", "--runs", "1", "--split", "0.75", "--dst", "run", "--eval_root", str(run / "refined")])
    content = load_checkpoint("results/run/logreg_classifier/run_00/detector.pt", "detector")
    for side in ("real", "fake"):
        parts = [set(content["names"][side][part]) for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == COUNT
    assert content["names"]["real"]["test"] == content["names"]["fake"]["test"]  # the same names, so the same scenes
    row = table("results/run/logreg_classifier/runs.csv")["eval/refined", "none", "auc"]
    assert int(row["fakes"]) == int(row["reals"]) == COUNT // 4


def test_versions_of_training_images_judge_nowhere(run, tmp_path):
    """Refined fakes and copies of reals in other folders are known by their names and their looks; other images keep all names."""
    (tmp_path / "elsewhere").mkdir()
    for name in ("real", "refined"):
        shutil.copytree(run / name, tmp_path / "elsewhere" / name)
    write_folder(tmp_path / "other", [photograph(900 + i) for i in range(COUNT)])
    assert {path.name for path in (tmp_path / "other").iterdir()} == {path.name for path in (run / "fake").iterdir()}
    command = ["--classifier", "logreg", "--dst", "run"]
    detect.main([*command, "--runs", "1", "--split", "0.75"])
    folders = ["--real", "elsewhere/real", "--fake", "elsewhere/refined", "--eval_root", "other"]
    detect.main([*command, "--is_train", "False", *folders])
    found = table("results/run/logreg_classifier/runs.csv")
    aucs = {generator: row for (generator, _, measure), row in found.items() if measure == "auc"}
    counts = {generator: (int(row["reals"]), int(row["fakes"])) for generator, row in aucs.items()}
    assert counts == {"elsewhere/refined": (COUNT // 4, COUNT // 4), "other": (COUNT // 4, COUNT)}
    text, seen = Path("results/run/logreg_classifier/evaluation.md").read_text(), COUNT - COUNT // 4
    for label in ("elsewhere/real", "elsewhere/refined"):
        assert f"{label}: {seen} of {COUNT} images are left out, the detector knows versions of them" in text
    assert text.count("are left out") == 2
    for label, count in (("elsewhere/refined", COUNT // 4), ("other", COUNT)):
        assert f"| {label} | {COUNT // 4}, {count} |" in plain(text)
    shutil.rmtree(run / "fake")  # with nothing to compare with, better too few than too many
    detect.main([*command, "--is_train", "False", *folders])
    found = table("results/run/logreg_classifier/runs.csv")
    assert int(found["other", "none", "auc"]["fakes"]) == COUNT // 4


def test_an_overfit_detector_is_no_better_than_guessing_on_reals_against_reals(run):
    for name, first in (("one", 0), ("two", 500)):
        write_folder(Path(name), [photograph(first + i) for i in range(40)])
    detect.main(["--classifier", "logreg", "--runs", "3", "--real", "one", "--fake", "two", "--split", "0.5", "--dst", "same"])
    row = table("results/same/logreg_classifier/runs.csv")["two", "none", "balanced_accuracy"]
    assert float(row["low"]) <= 0.5 <= float(row["high"])


def test_resuming_gives_the_uninterrupted_detector(run, monkeypatch, capsys):
    arguments = ["--classifier", "cnn", "--class_epoch", "3", "--class_batch_size", "8", "--lr", "0.02", "--device", "cpu"]
    folders = ["--real", str(run / "real"), "--fake", str(run / "fake")]
    detect.main([*arguments, *folders, "--dst", "whole"])
    original = training._train_epoch

    def interrupted(network, images, *rest):
        if images.epoch == 1:
            raise KeyboardInterrupt
        return original(network, images, *rest)

    monkeypatch.setattr(training, "_train_epoch", interrupted)
    with pytest.raises(SystemExit) as stop:
        detect.main([*arguments, *folders, "--dst", "parts"])
    assert stop.value.code == 130
    monkeypatch.setattr(training, "_train_epoch", original)
    told = refused(capsys, *arguments, *folders, "--dst", "parts", "--resume", "--patience", "5")
    assert "was trained with --patience 10; give 10, more or 0 to resume" in told
    detect.main([*arguments, *folders, "--dst", "parts", "--resume"])
    whole, parts = (load_checkpoint(f"results/{dst}/cnn_classifier/run_00/detector.pt", "detector") for dst in ("whole", "parts"))
    assert whole["threshold"] == parts["threshold"] and whole["best_epoch"] == parts["best_epoch"]
    assert all(torch.equal(value, parts["state"][name]) for name, value in whole["state"].items())


def test_the_readmes_slip_trains_evaluates_and_says_so(run, capsys):
    words = "--is_train True --classifier logreg --runs 2 --split 0.5 --dst run --eval_root"
    arguments = [*words.split(), str(run / "refined")]
    detect.main(arguments)
    assert "training logreg first, then evaluating" in capsys.readouterr().out
    before = Path("results/run/logreg_classifier/run_00/detector.pt").stat().st_mtime_ns
    detect.main(arguments)
    assert "is finished; training again would give the same" in capsys.readouterr().out
    assert Path("results/run/logreg_classifier/run_00/detector.pt").stat().st_mtime_ns == before
    assert "made with split = 0.5, not 0.6" in refused(capsys, *arguments, "--split", "0.6")
    detect.main([*arguments, "--split", "0.6", "--overwrite"])


def test_refusals_are_one_sentence(run, capsys, tmp_path):
    saved = ["--classifier", "logreg", "--dst", "run", "--is_train", "False"]
    small = ["--classifier", "logreg", "--runs", "1", "--split", "0.5", "--dst", "run"]
    assert "train the detector first" in refused(capsys, *saved)
    assert "--runs has no effect with --is_train False" in refused(capsys, *saved, "--runs", "3")
    assert "--filters has no effect with --mode detect" in refused(capsys, *small, "--filters", "polyphase")
    assert "--lr and --class_epoch have no effect on logreg" in refused(capsys, *small, "--lr", "0.1", "--class_epoch", "3")
    assert "--augment has no effect on logreg, cnn" in refused(capsys, *small, "--classifier", "logreg,cnn", "--augment", "1")
    assert "--runs has no effect with --mode features" in refused(capsys, "--mode", "features", "--runs", "3", "--dst", "run")
    assert "--resume has no effect with --mode features" in refused(capsys, "--mode", "features", "--resume", "--dst", "run")
    assert "exclude each other" in refused(capsys, *small, "--overwrite", "--resume")
    assert "--seed has no effect with --mode features" in refused(capsys, "--mode", "features", "--seed", "3", "--dst", "run")
    detect.main(small)
    capsys.readouterr()
    assert "exists already; --resume continues it, --overwrite replaces it" in refused(capsys, *small)
    said = refused(capsys, *saved, "--size", "16")
    assert "made with size = 32, not 16" in said and len([line for line in said.splitlines() if line.startswith("error")]) == 1
    assert "made with profile_corners = True, not False" in refused(capsys, *saved, "--profile_corners", "False")
    home = Path("results/run/logreg_classifier")
    home.rename(home.with_name("svm_classifier"))
    wrong = ["--classifier", "svm", "--dst", "run", "--is_train", "False"]
    assert "made with classifier = logreg, not svm" in refused(capsys, *wrong)
    save_checkpoint(home.with_name("svm_classifier") / "run_00/detector.pt", "stig", {})
    assert "not a detector checkpoint" in refused(capsys, *wrong)
    assert "does not exist" in refused(capsys, "--classifier", "logreg", "--dst", "nothing_there")
    assert "looks at the spectrum" in refused(capsys, "--classifier", "knn", "--domain", "image", "--dst", "run")
    assert "multiples of 4" in refused(capsys, "--classifier", "coherence", "--size", "30", "--dst", "run")
    assert "multiples of 8" in refused(capsys, "--classifier", "coherence8", "--size", "36", "--dst", "run")
    polyphase = ["--mode", "before_after", "--classifier", "svm", "--filters", "polyphase", "--dst", "run"]
    assert "--filters polyphase" in refused(capsys, *polyphase, "--size", "30")
    assert "multiple of 16" in refused(capsys, "--classifier", "vit", "--vit_weights", "none", "--size", "40", "--dst", "run")
    assert "training images per class" in refused(
        capsys, "--classifier", "knn", "--split", "0.2", "--dst", "few", "--real", str(run / "real"), "--fake", str(run / "fake")
    )


@pytest.mark.parametrize("mode", ["detect", "before_after", "features"])
def test_overwriting_deletes_nothing_before_all_is_checked(run, mode, capsys):
    command = ["--mode", mode, "--dst", "run"]
    command += ["--classifier", "logreg,svm", "--runs", "1", "--split", "0.6"] if mode != "features" else []
    detect.main(command)
    before = contents("results/run")
    wrong = [["--eval_root", "nothing"], ["--size", "8"], ["--device", "x"]]
    wrong += [["--num_samples", "4"], ["--split", "0.2"]] if mode != "features" else []
    for arguments in wrong:
        refused(capsys, *command, *arguments, "--overwrite")
        assert contents("results/run") == before, arguments
    write_folder(Path("few"), [photograph(i) for i in range(3)])
    if mode == "before_after":
        assert "lacks" in refused(capsys, *command, "--eval_root", "few", "--overwrite")
    assert contents("results/run") == before


def test_every_classifiers_folder_is_checked_before_the_first_is_trained(run, capsys):
    command = ["--runs", "1", "--split", "0.5", "--dst", "run"]
    detect.main([*command, "--classifier", "svm"])
    assert "svm_classifier exists already" in refused(capsys, *command, "--classifier", "logreg,svm")
    assert not Path("results/run/logreg_classifier").exists()


def test_a_bench_makes_no_network_before_it_is_asked_for_one(monkeypatch):
    """ViT-B/16 has 86 million numbers; to know that a size or weights do not fit takes none of them."""
    made = []
    original = detectors.VisionTransformer.__init__
    monkeypatch.setattr(
        detectors.VisionTransformer,
        "__init__",
        lambda self, **how: (original(self, **how), made.extend(p for p in self.parameters() if not p.is_meta))[0],
    )
    monkeypatch.setattr(detectors, "VIT", TINY_VIT)
    options = parse_detect(["--classifier", "vit", "--dst", "x"]).of("vit")
    weights = detectors.Detector("vit", 32, "spectrum").network.state_dict()
    made.clear()
    for pretrained in (None, weights):
        bench = bench_module.Bench("vit", 48, options, Processes(torch.device("cpu")), lambda pretrained=pretrained: pretrained)
    for size, pretrained, words in ((40, None, "multiple of 16"), (32, {"fc.weight": torch.zeros(2)}, "not of vit")):
        with pytest.raises(UserError, match=words):
            bench_module.Bench("vit", size, options, Processes(torch.device("cpu")), lambda pretrained=pretrained: pretrained)
    with pytest.raises(UserError, match="do not fit vit"):
        broken = weights | {"class_token": torch.zeros(1, 1, 7)}
        bench_module.Bench("vit", 32, options, Processes(torch.device("cpu")), lambda: broken)
    assert not made
    bench.new_judge(0, None)
    assert made


def test_what_an_interrupted_training_left_damaged_is_named(run, capsys, monkeypatch):
    command = ["--classifier", "cnn", "--class_batch_size", "8", "--dst", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(bench_module, "remove_progress", lambda folder: (folder / "detector.pt").unlink())
        detect.main([*command, "--class_epoch", "1"])
    folder = Path("results/run/cnn_classifier/run_00")
    for name in ("last", "best"):
        path = folder / f"{name}.pt"
        whole, content = path.read_bytes(), load_checkpoint(path, "detector-training")
        wrong = [content | {"network": {}}, {}]
        if name == "last":
            momenta = {number: {"momentum_buffer": torch.zeros(7)} for number in content["optimizer"]["state"]}
            wrong += [content | {"optimizer": content["optimizer"] | {"state": momenta}}, content | {"scheduler": {}}]
            wrong += [content | {"epoch": "x"}]
        for damaged in wrong:
            save_checkpoint(path, "detector-training", damaged)
            assert f"{path} is damaged or" in refused(capsys, *command, "--class_epoch", "1", "--resume")
        path.write_bytes(whole[: len(whole) // 2])
        assert f"{path} is not a checkpoint" in refused(capsys, *command, "--class_epoch", "1", "--resume")
        path.write_bytes(whole)
    detect.main([*command, "--class_epoch", "1", "--resume"])
    path = folder / "detector.pt"
    content = load_checkpoint(path, "detector")
    for part in ("names", "training", "threshold", "state", "trained_on"):
        save_checkpoint(path, "detector", {name: value for name, value in content.items() if name != part})
        assert f"{path} is damaged or" in refused(capsys, *command, "--is_train", "False")


def test_detectors_that_another_process_fills_are_not_judged(run, capsys, monkeypatch):
    command = ["--classifier", "svm", "--dst", "run"]
    detect.main([*command, "--runs", "1", "--split", "0.5"])
    scores = Path("results/run/svm_classifier/scores.json").read_bytes()
    for name, answer in (("held_by_another", True), ("hold", False)):  # seen when it is checked; not seen then, and faster
        with monkeypatch.context() as patch:
            patch.setattr(run_dir, name, lambda _folder, answer=answer: answer)
            told = refused(capsys, *command, "--is_train", "False")
            assert "another process is filling results/run/svm_classifier" in told and "--dst" in told
    assert Path("results/run/svm_classifier/scores.json").read_bytes() == scores


def test_damaged_classical_detectors_are_named(run, capsys):
    command = ["--classifier", "svm", "--dst", "run"]
    detect.main([*command, "--runs", "1", "--split", "0.5"])
    path = Path("results/run/svm_classifier/run_00/detector.pt")
    content = load_checkpoint(path, "detector")
    for state in ({}, content["state"] | {"dual": torch.zeros(1000)}):
        save_checkpoint(path, "detector", content | {"state": state})
        assert f"{path} is damaged or" in refused(capsys, *command, "--is_train", "False")


def test_before_and_after_goes_on_after_an_interruption(run, monkeypatch, capsys):
    command = ["--mode", "before_after", "--classifier", "logreg,svm", "--runs", "1", "--split", "0.6", "--dst", "run"]
    fit, calls = before_after.filtered_sets, []

    def second(*arguments, **named):
        if len(calls) == 1:
            signal.raise_signal(signal.SIGTERM)
        calls.append(1)
        return fit(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(before_after, "filtered_sets", second)
        with pytest.raises(SystemExit) as stop:
            detect.main(command)
    assert stop.value.code == 130 and "the same command with --resume goes on" in capsys.readouterr().err
    shutil.rmtree("results/run/svm_before_after")  # as if it had come before the second classifier's folder was made
    detect.main([*command, "--resume"])
    assert Path("results/run/detection.md").is_file()


def test_a_detector_file_cannot_execute_code(run, capsys):
    detect.main(["--classifier", "logreg", *SHORT])
    with Path("results/run/logreg_classifier/run_00/detector.pt").open("wb") as file:
        pickle.dump({"kind": "detector", "state": Trap("exploded")}, file)
    assert "nothing was loaded" in refused(capsys, "--classifier", "logreg", "--dst", "run", "--is_train", "False")
    assert not Path("exploded").exists()


def test_images_of_different_sizes_need_a_size(run, capsys):
    write_folder(Path("wide"), [np.zeros((32, 48, 3), np.uint8)] * 12)
    said = refused(capsys, "--classifier", "logreg", "--real", str(run / "real"), "--fake", "wide", "--dst", "sizes")
    assert "wide/000.png is 48 x 32" in said and "--fit crop" in said


def test_what_gives_the_label_away_is_told(run, capsys):
    write_folder(Path("jpegs"), [generated(2000 + i) for i in range(COUNT)], ".jpg", quality=70)
    detect.main(
        ["--classifier", "logreg", "--runs", "1", "--split", "0.5", "--real", str(run / "real"), "--fake", "jpegs", "--dst", "leak"]
    )
    assert "file formats differ" in capsys.readouterr().err
    assert "file formats differ" in Path("results/leak/logreg_classifier/evaluation.md").read_text()


def test_images_that_were_resized_or_left_out_are_told(run):
    write_folder(Path("large"), [generated(2000 + i, size=48) for i in range(COUNT)])
    Path("large/broken.png").touch()
    folders = ["--real", str(run / "real"), "--fake", "large", "--size", "32", "--skip_bad"]
    detect.main(["--classifier", "logreg", "--runs", "1", "--split", "0.5", "--dst", "told", *folders])
    text = Path("results/told/logreg_classifier/evaluation.md").read_text()
    assert "Warning: left out: large/broken.png" in text and "are resized to 32 x 32" in text


@pytest.mark.usefixtures("drawn_figures")
def test_matrix_of_detectors_and_generators(run):
    write_folder(Path("other"), [photograph(3000 + i) for i in range(30)])
    words = "--classifier logreg,svm --runs 2 --split 0.5 --num_samples 20 --dst run --eval_root"
    detect.main([*words.split(), f"{run / 'refined'},other"])
    text = plain(Path("results/run/detection_matrix.md").read_text())
    assert "| balanced_accuracy | eval/fake | eval/refined | " in text and "| logreg |" in text and "| svm |" in text
    assert Path("results/run/detection_matrix.png").stat().st_size > 1000
    with Path("results/run/detection_matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        (row["classifier"], row["generator"].split("/")[-1]): float(row["mean"])
        for row in rows
        if row["measure"] == "balanced_accuracy"
    }
    assert len(found) == 6
    assert found["logreg", "fake"] > 0.9 and abs(found["logreg", "other"] - 0.5) < 0.25
    counts = {row["generator"].split("/")[-1]: int(row["fakes"]) for row in rows}
    assert counts["fake"] == 10 and counts["other"] == 20


def test_before_and_after(run, capsys):
    detect.main(["--mode", "before_after", "--classifier", "logreg", "--runs", "3", "--split", "0.75", "--dst", "run"])
    out = capsys.readouterr().out
    assert "| balanced_accuracy | fake | linear | cepstral | refined |" in plain(out)
    text = Path("results/run/detection.md").read_text()
    assert "logreg, trained on fakes" in text and "logreg, trained afresh on each" in text
    with Path("results/run/detection.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["trained_on"], row["generator"]): float(row["mean"]) for row in rows if row["measure"] == "balanced_accuracy"}
    assert set(found) == {
        ("fake", "fake"),
        ("fake", "linear"),
        ("fake", "cepstral"),
        ("fake", "refined"),
        ("refined", "refined"),
        ("linear", "linear"),
        ("cepstral", "cepstral"),
    }
    assert "`cepstral`, the same without its noise" in text
    assert found["fake", "fake"] > 0.8 and found["fake", "refined"] < 0.7 and found["refined", "refined"] < 0.8


def test_before_and_after_any_filter(run):
    command = ["--mode", "before_after", "--classifier", "logreg", "--runs", "1", "--split", "0.6", "--dst", "run"]
    detect.main([*command, "--filters", "polyphase"])
    assert "| balanced_accuracy | fake | polyphase | refined |" in plain(Path("results/run/detection.md").read_text())


def test_images_that_go_by_few_names_are_too_few_to_learn_from(run, capsys):
    """Versions of one scene are in one fold; the others must be enough."""
    names = [f"0.{suffix}" for suffix in ("png", "bmp", "tiff", "tif", "jpg", "jpeg", "webp")]
    for side in ("real", "fake"):
        for number, name in enumerate([*names, *(f"{number}.png" for number in range(1, 6))]):
            place = Path("alike") / side / name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(number)).save(place)
    folders = ["--real", "alike/real", "--fake", "alike/fake"]
    command = ["--classifier", "logreg", *folders, "--runs", "1", "--split", "0.9", "--seed", "1", "--dst", "z"]
    assert "go by one name" in refused(capsys, *command)


SHORT = ["--runs", "1", "--split", "0.5", "--dst", "run"]


def matrix():
    """detection_matrix.csv -> {(classifier, generator): balanced accuracy}."""
    with Path("results/run/detection_matrix.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "balanced_accuracy"]
    return {(row["classifier"], row["generator"]): row["mean"] for row in rows}


def test_later_calls_keep_what_earlier_ones_measured(run, capsys):
    """Three calls leave the table that one call would have; what is measured again is there once."""
    write_folder(Path("a/fake"), [generated(3000 + i) for i in range(COUNT)])
    write_folder(Path("b/a/fake"), [photograph(3000 + i) for i in range(COUNT)])
    detect.main(["--classifier", "svm", *SHORT, "--robustness"])
    detect.main(["--classifier", "logreg", *SHORT, "--eval_root", "a/fake"])
    assert matrix().keys() == {("svm", "eval/fake"), ("logreg", "eval/fake"), ("logreg", "a/fake")}
    assert "| svm | " in plain(Path("results/run/detection_matrix.md").read_text())
    one = matrix()
    detect.main(["--classifier", "logreg", "--is_train", "False", "--dst", "run", "--eval_root", "b/a/fake"])
    assert "setting" not in capsys.readouterr().out
    two = matrix()  # in which the second folder's name does not hide the first's
    assert one.items() < two.items() and two.keys() - one.keys() == {("logreg", "b/a/fake")}
    home = Path("results/run/logreg_classifier")
    assert {generator for generator, _, _ in table(home / "runs.csv")} == {"eval/fake", "a/fake", "b/a/fake"}
    text = plain((home / "evaluation.md").read_text())
    assert "results/run/eval/real (24 images)" in text and "logreg: 1 run, --split 0.5" in text
    detect.main(["--classifier", "svm", "--is_train", "False", "--dst", "run"])  # without --robustness
    assert {key[1] for key in table("results/run/svm_classifier/runs.csv")} == set(PERTURBATIONS)
    detect.main(["--classifier", "svm", "--is_train", "False", "--dst", "run", "--eval_root", "a/fake"])  # which was not perturbed
    robustness = plain(Path("results/run/svm_classifier/evaluation.md").read_text()).split("## Robustness")[1]
    assert "eval/fake" in robustness and "a/fake" not in robustness.replace("eval/fake", "")
    with Path("results/run/logreg_classifier/scores.json").open() as file:
        assert len(json.load(file)["rows"][0]["real_scores"]) == COUNT // 2


def test_few_images_are_told(run, capsys):
    detect.main(["--classifier", "logreg", *SHORT])
    told = "only 12 images of a class judge in each run: with all 12 judged right, 24% of all such images may still be judged wrong"
    assert f"warning: logreg: {told}" in capsys.readouterr().err
    assert f"Warning: {told}" in Path("results/run/logreg_classifier/evaluation.md").read_text()
    after = ["--mode", "before_after", "--classifier", "logreg", *SHORT, "--split", "0.6"]
    detect.main([*after, "--eval_root", str(run / "refined")])
    assert "warning: logreg: only 10 images of a class judge" in capsys.readouterr().err
    rows = [
        Judged("logreg", "fake", "fake", "none", 0, {}, *(np.zeros(count) for count in counts)) for counts in ((20, 30), (30, 20))
    ]
    assert not told_few(rows)


def test_tables_are_put_aside_together(tmp_path, monkeypatch):
    for name in records.TABLES:
        (tmp_path / name).write_text(name)
    rename = Path.rename

    def interrupted(path, target):
        if path.name == records.TABLES[1]:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", interrupted)
        records._put_aside(tmp_path)
    monkeypatch.setattr(records, "read_record", lambda _home: None)
    monkeypatch.setattr(records, "write_record", lambda *_: None)
    records.keep(tmp_path, records.Record({}, [], []))
    assert {path.name for path in tmp_path.iterdir()} == {"earlier_1"}
    assert {path.name for path in (tmp_path / "earlier_1").iterdir()} == set(records.TABLES)


def test_numbers_of_another_setting_are_set_aside_and_not_mixed(run, capsys):
    write_folder(Path("other"), [photograph(900 + i) for i in range(COUNT)])
    detect.main(["--classifier", "svm,knn", *SHORT])
    detect.main(["--classifier", "logreg", *SHORT, "--split", "0.6"])
    told = "Left out, being of another setting (split 0.5, here 0.6): results/run/svm_classifier/runs.csv."
    assert told in capsys.readouterr().out
    home, before = Path("results/run/svm_classifier"), table("results/run/svm_classifier/runs.csv")
    detect.main(["--classifier", "svm", "--is_train", "False", "--dst", "run", "--real", "other", "--eval_root", str(run / "fake")])
    said = capsys.readouterr().out
    assert f"earlier tables of {home} are of another setting" in said and f"now in {home / 'earlier_1'}" in said
    assert table(home / "earlier_1/runs.csv") == before and (home / "earlier_1/evaluation.md").is_file()
    assert "other (24 images)" in (home / "evaluation.md").read_text()
    for folder in ("real", "fake"):
        Image.fromarray(photograph(77)).save(run / folder / "new.png")
    detect.main(["--classifier", "mlp", *SHORT])
    said = capsys.readouterr().out
    assert said.count("Left out") == 3 and "knn_classifier" in said and "(24 images), here" in said
    (home / "scores.json").unlink()  # as an earlier version left it
    detect.main(["--classifier", "svm", "--is_train", "False", "--dst", "run"])
    assert (home / "earlier_2/evaluation.md").is_file() and "they do not say which" in capsys.readouterr().out


def test_other_images_of_the_same_names_do_not_share_a_table(run, capsys):
    """Nor does a matrix of numbers that are no longer shown stay."""
    detect.main(["--classifier", "svm,logreg", *SHORT])
    matrix = Path("results/run/detection_matrix.md")
    before = matrix.read_text()
    shutil.rmtree(run / "fake")
    write_folder(run / "fake", [generated(4000 + i) for i in range(COUNT)])
    capsys.readouterr()
    detect.main(["--classifier", "logreg", *SHORT, "--overwrite"])
    told = f"(other images in {run / 'fake'}): results/run/svm_classifier/runs.csv"
    assert f"Left out, being of another setting {told}" in capsys.readouterr().out
    assert matrix.read_text() != before and "| svm |" not in plain(matrix.read_text())


def test_classifiers_of_an_earlier_call_stay_in_before_and_after(run, capsys):
    command = ["--mode", "before_after", *SHORT, "--split", "0.6"]
    detect.main([*command, "--classifier", "svm", "--filters", "linear"])
    detect.main([*command, "--classifier", "logreg"])
    text = plain(Path("results/run/detection.md").read_text())
    assert "| svm, trained on fakes |" in text and "| logreg, trained on fakes |" in text
    told = "For testing in each run: svm: 10 reals and 10 fakes (or their refined versions); logreg: 10 reals and 10 fakes"
    assert told in text
    assert "`linear`, one fixed" in text and "`cepstral`, the same" in text
    shutil.copytree(run / "refined", "others")
    detect.main([*command, "--classifier", "knn", "--eval_root", "others"])
    text = plain(Path("results/run/detection.md").read_text())
    assert "| svm, trained on fakes |" not in text and "svm_before_after/runs.csv" in text
    assert (
        "Left out, being of another setting (refined results/run/eval/refined (24 images), here others (24 images))"
        in capsys.readouterr().out
    )


def test_damaged_records_are_named_before_the_work(run, capsys):
    detect.main(["--classifier", "svm", *SHORT])
    path = Path("results/run/svm_classifier/scores.json")
    for content in ("{", "[]", "{}", '{"setting": {}, "rows": [], "warnings": []}'):
        path.write_text(content)
        told = refused(capsys, "--classifier", "logreg", *SHORT)
        assert str(path) in told and "delete it: the classifier is judged again" in told
        assert not Path("results/run/logreg_classifier").exists()
    detect.main(["--classifier", "svm", *SHORT, "--overwrite"])


def test_weights_are_fetched_when_nothing_else_is_amiss():
    def fetch():
        raise AssertionError("nothing was to be downloaded")

    device = Processes(torch.device("cpu"))
    options = parse_detect(["--classifier", "resnet50", "--dst", "x", "--class_batch_size", "1"]).of("resnet50")
    with pytest.raises(UserError, match="too small"):
        bench_module.Bench("resnet50", 32, options, device, fetch)
    with pytest.raises(UserError, match="multiple of 16"):
        bench_module.Bench("vit", 40, parse_detect(["--classifier", "vit", "--dst", "x"]).of("vit"), device, fetch)
    saved = ["--classifier", "resnet50", "--dst", "x", "--is_train", "False", "--class_batch_size", "1"]
    bench_module.Bench("resnet50", 32, parse_detect(saved).of("resnet50"), device)  # judges one image at a time


def test_a_missing_run_is_no_obstacle_to_the_others(run):
    command, home = ["--classifier", "logreg", "--dst", "run", "--device", "cpu"], Path("results/run/logreg_classifier")
    detect.main([*command, "--runs", "3", "--split", "0.5"])
    before = next(csv.DictReader((home / "runs.csv").open()))
    shutil.rmtree(home / "run_01")
    detect.main([*command, "--is_train", "False"])
    after = next(csv.DictReader((home / "runs.csv").open()))
    assert [after[f"run_{number}"] for number in (0, 1)] == [before[f"run_{number}"] for number in (0, 2)]
    assert "run_2" not in after


def test_what_may_stand_in_one_table(run):
    """The classifiers' own defaults may, and equal numbers; detectors of one classifier only if they are the same ones."""
    sets, size, _ = open_sets({"real": run / "real", "fake": run / "fake"}, parse_detect(["--dst", "run"]))

    def setting(classifier, *arguments, names=("1",), **training):
        options = parse_detect(["--classifier", classifier, "--dst", "run", *arguments]).of(classifier)
        bench = bench_module.Bench(classifier, size, options, Processes(torch.device("cpu")))
        made = bench.training(sets["real"], sets["fake"]) | training
        return records.setting_of(bench, made, options.runs, [names], {"real": sets["real"]}, [sets["fake"]])

    assert records.difference(setting("cnn"), setting("knn")) is None
    assert records.difference(setting("cnn"), setting("knn", "--split", "0.8")) is None
    assert "split 0.8, here 0.1" in records.difference(setting("knn"), setting("svm", "--split", "0.8"))
    assert "seed 1, here 42" in records.difference(setting("knn"), setting("svm", "--seed", "1"))
    assert "other photographs" in records.difference(setting("knn"), setting("svm", names=("2",)))
    assert "trained otherwise" in records.difference(setting("cnn"), setting("cnn", "--lr", "0.1"))
    assert records.difference(setting("cnn"), setting("vit", "--lr", "0.1")) is None
    drawn_anew = {name: value for name, value in setting("knn").items() if name != "intervals"}  # an earlier version's
    assert "intervals None, here closed form" in records.difference(setting("cnn"), drawn_anew)


def test_features_of_folders(run, capsys):
    detect.main(["--mode", "features", "--real", str(run / "real"), "--dst", "numbers"])
    with Path("results/numbers/features/eval_real.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    arrays = np.load("results/numbers/features/eval_real.npz", allow_pickle=False)
    image = torch.from_numpy(np.array(Image.open(run / "real" / "003.png"))).permute(2, 0, 1)[None] / 255
    assert [row["name"] for row in rows] == arrays["names"].tolist() == [f"{i:03d}.png" for i in range(COUNT)]
    np.testing.assert_allclose(arrays["decay"][3], decay_features(image)[0].numpy(), rtol=1e-9)
    assert float(rows[3]["exponent"]) == pytest.approx(arrays["decay"][3, 0], rel=1e-5)
    assert arrays["log_profile"].shape[0] == COUNT
    assert json.loads(Path("results/numbers/features/options.json").read_text())["mode"] == "features"
    again = ["--mode", "features", "--real", str(run / "real"), "--dst", "numbers"]
    assert "features exists already; --overwrite replaces it" in refused(capsys, *again)
    detect.main([*again, "--overwrite"])


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 1000))
def test_samples_are_drawn_without_replacement_and_alike_for_versions(total, count, seed):
    names = [f"{i:03d}.png" for i in range(total)]
    drawn = draw_samples(names, count, seed)
    assert len(drawn) == len(set(drawn)) == min(count, total) and set(drawn) <= set(names)
    versions = draw_samples([name.replace(".png", ".jpg") for name in reversed(names)], count, seed)
    assert [Path(name).stem for name in versions] == [Path(name).stem for name in drawn]


@pytest.mark.usefixtures("drawn_figures")
def test_names_may_be_any_bytes(run, capsys):
    names = [os.fsdecode(b"\xff%d.png" % index) for index in range(9)]
    assert len(draw_samples(names, 4, 0)) == 4
    strange = Path("$x^{$ " + os.fsdecode(b"\xff"))
    shutil.copytree(run / "fake", strange)
    for path in list(strange.iterdir()):
        path.rename(path.with_name(os.fsdecode(b"\xff" + path.name.encode())))
    words = "--classifier svm --runs 1 --split 0.5 --dst any"
    detect.main([*words.split(), "--real", str(run / "real"), "--fake", str(strange)])
    assert Path("results/any/svm_classifier/curves.png").is_file()
    (row,) = json.loads(Path("results/any/svm_classifier/scores.json").read_text(errors="surrogateescape"))["rows"]
    assert [{name[0] == "\udcff" for name in row["names"][side]} for side in ("real", "fake")] == [{False}, {True}]
    other = Path(os.fsdecode(b"\xfe"))
    write_folder(other, [generated(5000 + i) for i in range(COUNT)])
    command = ["--classifier", "svm", "--is_train", "False", "--real", str(run / "real"), "--fake", str(strange), "--dst", "any"]
    detect.main([*command, "--eval_root", str(other)])  # a matrix, with names below it
    assert Path("results/any/detection_matrix.png").is_file()


def test_folders_have_a_name_wherever_they_are_called_from(tmp_path, monkeypatch):
    place = tmp_path / "faces" / "fake"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    assert image_sets.folder_labels([".", ".."]) == {".": "faces/fake", "..": f"{tmp_path.name}/faces"}
    assert image_sets.folder_labels([".", "../fake", "../real"]) == {".": ".", "../fake": "../fake", "../real": "faces/real"}


def test_versions_are_found_with_and_without_folders_in_their_names(run):
    """An image of a tar may be called faces/001.png, and a picture of it in a folder faces_001.png."""
    with tarfile.open("fakes.tar", "w") as tar:
        for path in sorted((run / "fake").iterdir()):
            tar.add(path, f"faces/{path.name}")
    write_folder(Path("flat"), [generated(1000 + i) for i in range(COUNT)])
    for path in list(Path("flat").iterdir()):
        path.rename(path.with_name(f"faces_{path.name}"))
    nested, flat = (ImageSet("x", name, load_folder(name, None)[0]) for name in ("fakes.tar", "flat"))
    assert (nested.names[3], flat.names[3]) == ("faces/003.png", "faces_003.png")
    assert flat.indices(nested.names).tolist() == nested.indices(flat.names).tolist() == list(range(COUNT))
    drawn = [draw_samples(images.names, 5, 3) for images in (nested, flat)]
    assert [name.replace("/", "_") for name in drawn[0]] == drawn[1]
    names = {"train": nested.names[:10], "validation": nested.names[10:12], "test": nested.names[12:]}
    content = {"training": {"fake": "fakes.tar", "real": "x"}, "names": {"fake": names, "real": NONE}}
    for images in (nested, flat):
        assert unseen(images, "fake", content, None, 0).tolist() == list(range(12, COUNT))


def test_names_are_mapped_once(run, monkeypatch):
    asked, key = [], image_sets.version_key
    monkeypatch.setattr(image_sets, "version_key", lambda name: asked.append(name) or key(name))
    images = ImageSet("x", run / "fake", load_folder(run / "fake", None)[0])
    for _ in range(3):
        assert images.indices(["003.png", "005.jpg", "004.png"]).tolist() == [3, 5, 4]
    assert len(asked) == COUNT + 3  # each image's once, and that of the name which is not there
    with pytest.raises(UserError, match=r"lacks 099\.png"):
        images.indices(["099.png"])


def test_runs_draw_different_splits(run):
    options = parse_detect(["--dst", "run"])
    sets, _, _ = open_sets({"real": run / "real", "fake": run / "fake"}, options)
    splits = [split_names(sets["real"], sets["fake"], 20, 0.5, seed, "knn") for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
    assert len(splits[0]["fake"]["test"]) == 10 and len(splits[0]["fake"]["train"]) == 8


def test_the_seeds_commands_parse():
    given = "--is_train True --classifier cnn --lr 0.0002 --size 256 --device 0 --class_epoch 20 --class_batch_size 32 --dst x"
    options = parse_detect(given.split(" "))
    assert (options.is_train, options.classifier, options.lr, options.class_epoch, options.class_batch_size) == (
        True,
        ("cnn",),
        2e-4,
        20,
        32,
    )
    own = parse_detect(["--classifier", "knn,vit", "--dst", "x"])
    assert (own.of("knn").runs, own.of("knn").num_samples, own.of("knn").split) == (10, 1000, 0.1)
    assert (own.of("vit").runs, own.of("vit").lr, own.of("vit").split) == (1, 2e-4, 0.8)
    assert parse_detect(["--classifier", "knn", "--runs", "3", "--dst", "x"]).of("knn").runs == 3


@pytest.mark.parametrize(
    "arguments", [["--classifier", "forest"], ["--is_train", "False", "--resume"], ["--split", "1.5"], ["--runs", "0"]]
)
def test_senseless_options_are_refused(arguments, capsys):
    assert "error" in refused(capsys, "--dst", "x", *arguments)


CNN = ["--classifier", "cnn", "--class_batch_size", "8", "--class_epoch", "1", "--dst", "run"]


@pytest.fixture
def interrupted(run, monkeypatch):
    """results/run/cnn_classifier/run_00 of a training that ended before its detector was saved; its last.pt."""
    with monkeypatch.context() as patch:
        patch.setattr(bench_module, "remove_progress", lambda folder: (folder / "detector.pt").unlink())
        detect.main(CNN)
    return Path("results/run/cnn_classifier/run_00/last.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [(("--lr", "0.05"), "lr = 0.0002"), (("--seed", "7"), "seed = 42"), (("--domain", "image"), "domain = spectrum")],
)
def test_an_interrupted_training_goes_on_as_it_began(interrupted, capsys, change, words):
    assert f"{interrupted} was made with {words}" in refused(capsys, *CNN, *change, "--resume")
    assert interrupted.is_file() and not interrupted.with_name("detector.pt").exists()
    detect.main([*CNN, "--class_epoch", "2", "--resume"])  # longer than it was to be


def test_images_that_came_later_do_not_enter_an_interrupted_training(run, interrupted, capsys):
    """Their split is another one: what was trained on before could be judged on now."""
    for i in range(COUNT, COUNT + 4):
        Image.fromarray(photograph(i)).save(run / "real" / f"{i:03d}.png")
    assert f"{interrupted} was made of other images" in refused(capsys, *CNN, "--resume")


def test_before_and_after_does_not_judge_by_images_that_were_trained_on(run, capsys):
    words = "--mode before_after --classifier logreg --runs 1 --split 0.6 --filters linear --dst run"
    detect.main(words.split())
    for i in range(COUNT, COUNT + 4):
        Image.fromarray(photograph(i)).save(run / "real" / f"{i:03d}.png")
    assert "was made of other images" in refused(capsys, *words.split(), "--resume")


def test_detectors_of_images_that_were_made_anew_under_their_names_are_not_kept(run, capsys):
    fake = Path("gan")
    shutil.copytree(run / "fake", fake)
    folders = ["--real", str(run / "real"), "--fake", str(fake)]
    command = ["--classifier", "logreg", "--runs", "1", *folders, "--dst", "again"]
    before = ["--mode", "before_after", *command, "--eval_root", "gan2", "--filters", "linear"]
    shutil.copytree(run / "refined", "gan2")
    detect.main(command)
    detect.main(before)
    for folder in (fake, Path("gan2")):
        shutil.rmtree(folder)
    write_folder(fake, [generated(700 + i) for i in range(COUNT)])
    write_folder(Path("gan2"), [generated(800 + i) for i in range(COUNT)])
    assert "was made of images of these names, but of other contents than they have now" in refused(
        capsys, *command, "--eval_root", str(run / "fake")
    )
    assert "of other contents than they have now" in refused(capsys, *before, "--resume")
    detect.main([*command, "--overwrite"])


def test_filters_beside_refined_images_are_fitted_on_as_many_as_those_of_inference(run, monkeypatch):
    real, fake = (ImageSet(side, run / side, load_folder(run / side, None)[0]) for side in ("real", "fake"))
    names = real.names[1:]
    monkeypatch.setattr(filter_fitting, "FITTING_IMAGES", 1)  # of 128 x 128: 16 of 32 x 32
    fitted = filters_between(["linear"], real, names, fake, names, "cpu")["linear"]
    few = [1 + place for place in evenly_spaced(COUNT - 1, 16)]
    reads = [lambda images=images: (images.images[index][None] for index in few) for images in (real, fake)]
    assert torch.allclose(fitted["gain"], fit_filters(*reads, ["linear"])["linear"]["gain"], rtol=1e-5)


def test_no_detector_is_trained_or_judged_on_what_a_filter_was_fitted_on(run, monkeypatch):
    """A filter changes those more than others."""
    used, fit = [], before_after.filters_between

    def noting(kinds, real, real_names, fake, fake_names, device):
        used.append({"real": {*real_names}, "fake": {*fake_names}})
        return fit(kinds, real, real_names, fake, fake_names, device)

    monkeypatch.setattr(before_after, "filters_between", noting)
    command = ["--mode", "before_after", "--classifier", "svm", "--runs", "2", "--split", "0.6", "--dst", "run"]
    detect.main(command)
    assert (
        len(used) == 2 and "fitted on half of the images that are not for testing" in Path("results/run/detection.md").read_text()
    )
    for run_number, names in enumerate(used):
        for kind in ("fake", "linear", "refined"):
            known = load_checkpoint(f"results/run/svm_before_after/{kind}/run_{run_number:02d}/detector.pt", "detector")["names"]
            for side in ("real", "fake"):
                parts = [{*known[side][part]} for part in ("train", "validation", "test")]
                assert names[side].isdisjoint(set().union(*parts)) and sum(map(len, parts)) + len(names[side]) == COUNT
    detect.main([*command[:3], "knn", *command[4:], "--filters", "none"])  # which has all of them to train on
    text = Path("results/run/detection.md").read_text()
    assert "svm_before_after/runs.csv" in text and "(filters_fitted True, here False)" in text
    detect.main([*command, "--filters", "none", "--overwrite"])
    assert len(used) == 2 and "filters, " not in Path("results/run/detection.md").read_text()


def test_filters_of_a_run_are_those_of_its_checkpoint(run, monkeypatch, capsys):
    """They were fitted on its training images, so that all images left can be learned from."""
    read = [lambda side=side: (load_folder(run / side, None)[0][index][None] for index in range(8)) for side in ("real", "fake")]
    save_checkpoint("results/run/checkpoint.pt", "stig", {"settings": {"size": SIZE}, "filters": fit_filters(*read)})
    monkeypatch.setattr(before_after, "filters_between", lambda *_: pytest.fail("fitted anew"))
    command = ["--mode", "before_after", "--classifier", "logreg", "--runs", "1", "--split", "0.5", "--dst", "run"]
    detect.main([*command, "--filters", "linear,polyphase"])
    assert "filters, those of the run" in Path("results/run/detection.md").read_text()
    other = fit_filters(*reversed(read))
    save_checkpoint("results/run/checkpoint.pt", "stig", {"settings": {"size": SIZE}, "filters": other})
    assert "was made with filter =" in refused(capsys, *command, "--filters", "linear", "--resume")
    save_checkpoint("results/run/checkpoint.pt", "stig", {"settings": {"size": SIZE}, "filters": {}})
    assert "checkpoint.pt" in refused(capsys, *command, "--overwrite")


def test_a_finished_detector_of_another_size_is_told_before_another_is_trained(run, capsys):
    command = ["--runs", "1", "--class_epoch", "1", "--dst", "run", "--fit", "crop"]
    detect.main([*command[:2], *command[4:], "--classifier", "coherence", "--size", "16"])
    told = refused(capsys, *command, "--classifier", "cnn,coherence", "--size", "32", "--resume")
    assert "was made with size = 16, not 32; leave it out of --classifier" in told
    assert not (run.parent / "cnn_classifier").exists()
    again = refused(capsys, "--is_train", "False", "--classifier", "coherence", "--size", "32", "--fit", "crop", "--dst", "run")
    assert "train one for this" in again


def test_a_loss_that_is_not_finite_ends_the_training(run, capsys):
    for batch in ("8", "64"):  # of several steps and of one, which is seen at the validation only
        command = [*CNN, "--lr", "1e30", "--class_batch_size", batch, "--overwrite"]
        assert "the loss is not finite in epoch 1" in refused(capsys, *command)


def test_copies_among_other_images_of_the_same_names_judge_nowhere(run):
    """Half a folder of others hides no copies."""
    mixed = Path("mixed")
    write_folder(mixed, [photograph(500 + i) for i in range(COUNT)])
    copies = [f"{i:03d}.png" for i in (1, 4, 7, 10, 13)]
    for name in copies:
        shutil.copy(run / "real" / name, mixed / name)
    names = {"train": [f"{i:03d}.png" for i in range(COUNT)], "validation": [], "test": []}
    content = {"training": {"real": str(run / "real"), "fake": "x"}, "names": {"real": names, "fake": NONE}}
    images = ImageSet("x", mixed, load_folder(mixed, None)[0])
    left = [images.names[i] for i in unseen(images, "real", content, None, 0)]
    assert left == [name for name in images.names if name not in copies]


def test_copies_of_images_in_shards_judge_nowhere_but_others_do(run):
    with tarfile.open("fakes.tar", "w") as tar:
        for path in sorted((run / "fake").iterdir()):
            tar.add(path, path.name)
    write_folder(Path("others"), [generated(2000 + i) for i in range(COUNT)])
    shutil.copy(run / "fake/003.png", "others/003.png")
    names = {"train": [f"{i:03d}.png" for i in range(COUNT)], "validation": [], "test": []}
    content = {"training": {"fake": "fakes.tar", "real": "x"}, "names": {"fake": names, "real": NONE}}
    images = ImageSet("x", "others", load_folder("others", None)[0])
    left = [images.names[i] for i in unseen(images, "fake", content, None, 0)]
    assert left == [name for name in images.names if name != "003.png"]


def test_half_a_folder_of_versions_is_one_of_versions_and_an_image_of_one_colour_may_be_one():
    """Better one image too many is left out than one that the detector knows judges it."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    folder = SimpleNamespace(images=images, indices=lambda names: [int(name) for name in names])
    for alike in range(5):
        trained_on = {str(n): functools.partial(images.__getitem__, n if n < alike else n - 1) for n in range(4)}
        assert _mostly_versions(folder, trained_on) == (alike >= 2)
    assert _is_version(SimpleNamespace(images=torch.full_like(images, 0.5), indices=folder.indices), "0", lambda: images[0])


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("{}.png", "{}.bmp"), ("{}.png.png", "{}.bmp.png")),  # as refined images of such a folder are called
        (("\u00e9{}.png", "\u00e8{}.png"), ("e\u0301{}.png", "e\u0300{}.png")),  # composed, and as macOS decomposes it
    ],
)
def test_versions_are_known_where_stems_collide_and_in_either_unicode_form(run, names, others):
    for folder, forms in (("fakes", names), ("versions", others)):
        Path(folder).mkdir()
        for number in range(COUNT):
            name = forms[number % 2].format(number // 2)
            Image.fromarray(generated(number)).save(Path(folder, name))
    images, versions = (ImageSet(folder, folder, load_folder(folder, None)[0]) for folder in ("fakes", "versions"))
    parts = {"train": images.names[: COUNT // 2], "validation": [], "test": images.names[COUNT // 2 :]}
    content = {"training": {"fake": "fakes", "real": "x"}, "names": {"fake": parts, "real": NONE}}
    left = unseen(versions, "fake", content, None, 0)
    assert len(left) <= COUNT // 2
    seen = [np.asarray(Image.open(Path("fakes", name))) for name in parts["train"]]
    for index in left:
        assert not any(np.array_equal(np.asarray(Image.open(Path("versions", versions.names[index]))), other) for other in seen)


def test_what_was_trained_on_as_one_class_does_not_judge_as_the_other(run, capsys):
    real, fake = str(run / "real"), str(run / "fake")
    command = ["--classifier", "logreg", "--runs", "1", "--split", "0.5", "--dst", "classes", "--real", real, "--fake", fake]
    assert f"{real} is given for both classes" in refused(capsys, *command, "--eval_root", real)
    detect.main(command)
    swapped = ["--classifier", "logreg", "--is_train", "False", "--dst", "classes", "--real", fake, "--fake", real]
    assert "holds the fake images that the detector was trained on; give real ones" in refused(capsys, *swapped)


def test_the_table_says_how_the_training_reached_its_size(run, capsys):
    detect.main([*CNN, "--size", "32", "--fit", "crop"])
    text = Path("results/run/cnn_classifier/evaluation.md").read_text()
    assert "--fit crop, --seed 42. cnn" in text
    detect.main([*CNN[:2], "--dst", "run", "--is_train", "False", "--size", "32"])
    text = Path("results/run/cnn_classifier/evaluation.md").read_text()
    assert "--fit crop, --seed 42; they judge images brought to that size by --fit resize." in text


def test_what_cannot_be_asked_together_is_refused(run, capsys):
    both = ["--real", str(run / "real"), "--fake", str(run / "real"), "--dst", "one"]
    assert "is given for both classes" in refused(capsys, "--classifier", "logreg", *both)
    before_after = ["--mode", "before_after", "--classifier", "logreg", "--dst", "run"]
    assert "leave --is_train False out" in refused(capsys, *before_after, "--is_train", "False")
    assert "--robustness has no effect with --mode before_after" in refused(capsys, *before_after, "--robustness")
    one = ["--classifier", "resnet50", "--resnet_weights", "none", "--class_batch_size", "1", "--dst", "run"]
    assert "--class_batch_size 1 is too small" in refused(capsys, *one)
    assert "the spectrum or the image" in refused(capsys, "--classifier", "cnn", "--domain", "opponent", "--dst", "run")
    write_folder(Path("b/a_b_c"), [photograph(0)])
    write_folder(Path("b_a/b_c"), [photograph(1)])
    folders = ["--real", "b/a_b_c", "--fake", "b_a/b_c", "--dst", "features"]
    assert "would both be written to b_a_b_c.csv" in refused(capsys, "--mode", "features", *folders)
    assert not Path("results/features").exists()


@pytest.mark.parametrize(
    "positions", [torch.zeros(1, 5, 32, dtype=torch.int64), torch.zeros(1, 1, 32), torch.zeros(1, 5, 0), torch.zeros(1, 7, 32)]
)
def test_odd_vit_weights_are_one_sentence(run, capsys, positions):
    state = detectors.Detector("vit", 32, "spectrum").network.state_dict() | {"encoder.pos_embedding": positions}
    torch.save(state, "odd.pth")
    assert "these weights are not of vit" in refused(capsys, "--classifier", "vit", "--vit_weights", "odd.pth", "--dst", "run")


def test_a_folder_is_judged_once(run):
    options = parse_detect(["--dst", "x", "--real", str(run / "real"), "--fake", str(run / "fake"), "--cache_gb", "0.0001"])
    named = dataclasses.replace(options, eval_root=(str(run / "fake"), str(run / "refined"), str(run / "fake/../refined")))
    sets, _, _ = detect_mode.open_named(named)
    assert list(sets) == ["real", "fake", "other 0"] and sets["other 0"].folder == run / "refined"


def test_the_memory_for_images_is_shared_by_all_folders(run):
    options = parse_detect(["--dst", "x", "--cache_gb", "1"])
    whole = open_sets({"real": run / "real"}, options)[0]["real"].images.cached_gb
    sets, _, _ = open_sets({"real": run / "real", "fake": run / "fake"}, dataclasses.replace(options, cache_gb=1.5 * whole))
    assert [bool(images.images.cached_gb) for images in sets.values()] == [True, False]


def test_refined_images_that_their_refiner_was_made_with_are_told(run):
    write_json(run / "options.json", {"seen": 3, "refiner": "x"})
    for label, folders in (("told", {"real": run / "real", "fake": run / "refined"}), ("not", {"real": run / "real"})):
        _, _, notes = open_sets(folders, parse_detect(["--dst", "x"]))
        assert any("was made with 3 of the images that it refined" in note for note in notes) == (label == "told")


def test_a_refiner_that_saw_its_judges_is_told(tmp_path, monkeypatch):
    def warned(fraction, test_data):
        write_json(tmp_path / "images.json", {"fraction": fraction})
        write_json(tmp_path / "options.json", {"test_data": test_data})
        return [text for text in seen_by_refiner(tmp_path / "eval/refined") if "was fitted on the images that judge it" in text]

    assert seen_by_refiner(tmp_path / "eval/refined") == []
    assert [len(warned(*case)) for case in ((0.0, None), (0.0, "other"), (0.2, None))] == [1, 0, 0]
    warned(0.0, None)
    assert seen_by_refiner(tmp_path / "eval/fake") == seen_by_refiner(tmp_path / "other/refined") == []
    (tmp_path / "eval").mkdir()
    for place, folder, shown in (
        (tmp_path.parent, f"{tmp_path.name}/eval/refined", tmp_path.name),
        (tmp_path / "eval", "refined", tmp_path),
    ):
        monkeypatch.chdir(place)
        assert f"the refiner of {shown}, as its filters" in seen_by_refiner(folder)[0]


def test_samples_of_other_seeds_are_others():
    names = [f"{index:03d}.png" for index in range(60)]
    first, second = (draw_samples(names, 20, seed) for seed in (0, 1))
    assert first != second and names[:20] not in (first, second)


def test_spread_over_runs_is_the_estimated_deviation():
    rows = [Judged("knn", "a", "a", "none", run, {"auc": (value, 0.1, 0.9)}, [], []) for run, value in enumerate((0.2, 0.4, 0.6))]
    assert summary(rows, "auc") == pytest.approx((0.4, 0.1, 0.9, 0.2))
    assert summary(rows[:1], "auc") == (0.2, 0.1, 0.9, 0)


def judged(trained_on, generator, value):
    return Judged("knn", trained_on, generator, "none", 0, dict.fromkeys(MEASURES, (value, value, value)), np.ones(2), np.ones(2))


def test_the_second_line_is_of_detectors_trained_afresh_on_each(tmp_path):
    rows = [judged("fake", "fake", 0.9), judged("fake", "refined", 0.6), judged("refined", "refined", 0.8)]
    lines = write_before_after(tmp_path / "detection.md", rows, []).splitlines()[-2:]
    assert [re.findall(r"(0\.\d+) \[", line) for line in lines] == [["0.900", "0.600"], ["0.900", "0.800"]]


def test_of_what_was_measured_twice_the_later_counts():
    old, new = (
        records.Record({"generated": {}}, [judged("fake", "fake", value), judged("fake", name, value)], [f"of {name}"])
        for name, value in (("a", 0.1), ("b", 0.9))
    )
    assert records.merged(old, new).warnings == ["of a", "of b"]
    assert records.merged(dataclasses.replace(new, warnings=["of before"]), new).warnings == ["of b"]  # all measured anew
    found = {row.generator: row.measures["auc"][0] for row in records.merged(old, new).rows}
    assert found == {"fake": 0.9, "a": 0.1, "b": 0.9}


def test_rates_at_the_threshold_are_at_the_detectors_own():
    images = SimpleNamespace(label="x", names=["a", "b"])
    judge = SimpleNamespace(threshold=0.75, scores=lambda *_: np.array([0.7, 0.8]))
    bench = SimpleNamespace(classifier="knn", options=SimpleNamespace(seed=0))
    (row,) = judge_rows(bench, judge, 0, "fake", (images, [0, 1]), [(images, [0, 1])])
    found = [row.measures[f"{side}_right{border}"][0] for border in ("", "_at_threshold") for side in ("real", "fake")]
    assert found == [0, 1, 0.5, 0.5]


def test_filtered_images_are_rounded_as_files_are():
    fakes = type("Fakes", (list,), {"paths": ["0.png"]})([torch.rand(3, 16, 16)])
    (found,) = image_sets.FilteredImages(fakes, {})
    torch.testing.assert_close(found * 255, (fakes[0] * 255).round(), rtol=0, atol=1e-3)


def test_chosen_images_are_changed_by_their_place_in_the_folder():
    """So that an image's noise is the same whichever others judge."""
    assert list(image_sets.Chosen("abc", [2, 0], lambda item, index: (item, index))) == [("c", 2), ("a", 0)]


def test_features_hold_the_corners_unless_they_are_left_out(run):
    image = torch.from_numpy(np.array(Image.open(run / "real" / "003.png"))).permute(2, 0, 1)[None] / 255
    for corners in (True, False):
        detect.main(["--mode", "features", "--real", str(run / "real"), "--dst", f"{corners}", "--profile_corners", f"{corners}"])
        found = np.load(f"results/{corners}/features/eval_real.npz", allow_pickle=False)["log_profile"]
        np.testing.assert_allclose(found[3], log_profile(image, corners)[0].numpy(), rtol=1e-9)


def test_before_and_after_is_judged_by_test_images_of_both_classes(run):
    detect.main(
        ["--mode", "before_after", "--classifier", "logreg", "--runs", "1", "--split", "0.5", "--filters", "none", "--dst", "run"]
    )
    home = Path("results/run/logreg_before_after")
    rows = json.loads((home / "scores.json").read_text())["rows"]
    assert {row["trained_on"] for row in rows} == {"fake", "refined"}
    for row in rows:
        names = load_checkpoint(home / row["trained_on"] / "run_00/detector.pt", "detector")["names"]
        assert all(row["names"][side] == names[side]["test"] for side in ("real", "fake"))


def test_versions_in_another_format_are_known_one_that_was_changed_too(run):
    Path("jpegs").mkdir()
    for path in (run / "fake").iterdir():
        Image.open(path).save(f"jpegs/{path.stem}.jpg", quality=95)
    Image.fromarray(photograph(999)).save("jpegs/003.jpg")
    images, names = ImageSet("x", "jpegs", load_folder("jpegs", None)[0]), [f"{index:03d}.png" for index in range(COUNT)]
    parts = {"train": names[:10], "validation": names[10:12], "test": names[12:]}
    content = {"training": {"fake": str(run / "fake"), "real": "x"}, "names": {"fake": parts, "real": NONE}}
    assert unseen(images, "fake", content, None, 0).tolist() == list(range(12, COUNT))


def test_other_files_under_the_names_of_test_images_judge_nothing(run, capsys):
    """Which of them the detector has seen, their names do not say."""
    detect.main(["--classifier", "logreg", *SHORT])
    names = load_checkpoint("results/run/logreg_classifier/run_00/detector.pt", "detector")["names"]["fake"]
    places = [run / "fake" / names[part][0] for part in ("train", "test")]
    first, second = (place.read_bytes() for place in places)
    for place, content in zip(places, (second, first), strict=True):
        place.write_bytes(content)
    told = refused(capsys, "--classifier", "logreg", "--dst", "run", "--is_train", "False")
    assert "fake holds other files under the names of the images that were kept for testing" in told


def test_judging_by_other_samples_is_another_setting(run, capsys):
    command = ["--classifier", "logreg", *SHORT]
    detect.main([*command, "--eval_root", str(run / "refined")])
    path = Path("results/run/logreg_classifier/evaluation.md")
    assert "of other folders they judge" not in path.read_text()
    capsys.readouterr()
    judge = ["--classifier", "logreg", "--dst", "run", "--is_train", "False", "--eval_root", str(run / "refined")]
    detect.main([*judge, "--num_samples", "5", "--seed", "7"])
    told = "other folders judged by samples as in training, here at most 5 images of each, --seed 7"
    assert f"another setting ({told})" in capsys.readouterr().out
    assert "of other folders they judge at most 5 images of each, --seed 7." in path.read_text()


def test_classifiers_that_judge_by_their_own_defaults_stand_in_one_table(run, capsys):
    """Whatever they were trained on: of so few images nothing is drawn."""
    few = ["--num_samples", "20", "--seed", "7", *SHORT]
    detect.main(["--classifier", "logreg,svm", *few, "--eval_root", str(run / "refined")])
    capsys.readouterr()
    detect.main(["--classifier", "logreg,svm", "--dst", "run", "--is_train", "False", "--eval_root", str(run / "refined")])
    told = capsys.readouterr().out
    assert "another setting" not in told and "| svm " in told and "| logreg " in told


def test_versions_of_photographs_that_were_trained_on_judge_as_no_fakes(run):
    """Of a scene that a detector knows as real, by its name or that of a pair; others under such names do, and of lost ones."""
    write_folder(Path("versions"), [generated(3000 + i) for i in range(COUNT)])
    for name in ("001.png", "015.png"):
        shutil.copy(run / "real" / name, Path("versions", name))
    shutil.copy(run / "real/002.png", "versions/fake_002.png")  # the last
    images, names = ImageSet("x", "versions", load_folder("versions", None)[0]), [f"{index:03d}.png" for index in range(COUNT)]
    parts = {"train": names[:10], "validation": names[10:12], "test": names[12:]}
    content = {"training": {"fake": "x", "real": str(run / "real")}, "names": {"fake": NONE, "real": parts}}
    assert unseen(images, "fake", content, None, 0).tolist() == [index for index in range(COUNT) if index != 1]
    content["training"]["real"] = "gone"
    assert unseen(images, "fake", content, None, 0).tolist() == list(range(COUNT + 1))


def test_copies_of_training_images_under_other_names_are_told(run, capsys):
    """The folders that a detector was trained on are none of those that a later evaluation reads."""
    command = "--classifier knn --runs 1 --split 0.5 --dst run".split()
    detect.main([*command, "--real", str(run / "real"), "--fake", str(run / "fake")])
    capsys.readouterr()
    for side in ("real", "fake"):
        Path("renamed", side).mkdir(parents=True)
        for path in (run / side).iterdir():
            shutil.copy(path, Path("renamed", side, f"x{path.name}"))
    detect.main("--classifier knn --dst run --is_train False --real renamed/real --fake renamed/fake".split())
    told = capsys.readouterr().out
    for side in ("real", "fake"):
        assert f"renamed/{side}: {COUNT // 2} of {COUNT} images are copies, byte for byte, of images that the detector" in told


@pytest.mark.parametrize("mode", ["detect", "before_after"])
def test_what_cannot_be_resumed_is_told_before_anything_is_trained(run, monkeypatch, capsys, mode):
    command = f"--mode {mode} --runs 1 --dst run --class_epoch 2 --class_batch_size 8 --device cpu".split()
    command += ["--filters", "none"] if mode == "before_after" else []

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(training, "validate", lambda *_: (0.5, 0.5))
        patch.setattr(training, "_load", interrupted)  # after the last epoch
        detect.main([*command, "--classifier", "cnn", "--split", "0.6"])
    home = Path("results/run", "cnn_classifier" if mode == "detect" else "cnn_before_after")
    assert list(home.rglob("last.pt"))
    kept = contents("results")
    told = refused(capsys, *command, *"--classifier knn,cnn --split 0.5 --resume".split())
    assert "last.pt was made with split = 0.6, not 0.5; give the same options" in told
    assert contents("results") == kept


@pytest.mark.parametrize("classifier", ["logreg", "cnn"])
def test_thresholds_of_probabilities_become_those_of_margins(run, classifier):
    more = "--class_epoch 1 --class_batch_size 8" if classifier == "cnn" else ""
    detect.main(f"--classifier {classifier} --runs 1 --split 0.5 --dst run {more}".split())
    path = Path(f"results/run/{classifier}_classifier/run_00/detector.pt")
    content = load_checkpoint(path, "detector")
    t = 2 * content["threshold"] - 1
    before = table(path.parents[1] / "runs.csv")
    del content["score"]
    save_checkpoint(path, "detector", content | {"threshold": 1 / (1 + math.exp(-t / (1 - abs(t))))})
    detect.main(f"--classifier {classifier} --dst run --is_train False".split())
    after = table(path.parents[1] / "runs.csv")
    assert after == before and any(name == "fake_right_at_threshold" for *_, name in after)


def test_a_finished_detector_made_otherwise_may_judge_as_it_is(run, capsys):
    folders = ["--eval_root", str(run / "refined")]
    detect.main("--classifier knn --runs 1 --split 0.5 --dst run".split())
    told = refused(capsys, *"--classifier knn --runs 1 --split 0.6 --dst run".split(), *folders)
    assert "was made with split = 0.5, not 0.6; judge with it as it is by --is_train False, leave it out" in told
    detect.main([*"--classifier knn --is_train False --dst run".split(), *folders])
    both = "--mode before_after --classifier knn --runs 1 --filters none --dst run --split".split()
    detect.main([*both, "0.5"])
    assert "was made with split = 0.5, not 0.6; leave it out" in refused(capsys, *both, "0.6", "--resume")  # it has no such mode
