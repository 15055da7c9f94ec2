"""The quality benchmark: what is held out stays held out, and the judge says 0.5 where there is nothing to find."""

import copy
import dataclasses
import functools
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import told

from benchmarks import (
    fitting_size,
    quality,
    quality_data,
    quality_filters,
    quality_judge,
    quality_report,
    quality_rows,
    rounding,
    splits,
)
from benchmarks.quality_code import ROOT, SILENT, modules_behind
from benchmarks.quality_data import Case, Images
from data.demo import dead_leaves, make_demo, through_generator
from models import nested_unet, refiners, stig
from utils import aliases, filters, lifter, linear_filter, polyphase
from utils.errors import UserError
from utils.files import read_json
from utils.filters import FILTERS

SIZE = 32


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A folder with datasets/small of 32 + 32 images of 32 px as the working directory."""
    monkeypatch.chdir(tmp_path)
    make_demo("datasets/small", 32, SIZE, seed=3)
    return tmp_path


def drawn(stream, count, fake=False):
    """`Images` of their own scenes."""
    images = [dead_leaves(np.random.default_rng([9, stream, number]), SIZE) for number in range(count)]
    pixels = np.stack([through_generator(image) if fake else image for image in images])
    return Images([f"{stream}_{number}.png" for number in range(count)], torch.from_numpy(pixels).float().permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def case():
    """24 images each."""
    return Case("x", SIZE, "validation", drawn(0, 24), drawn(1, 24, True), drawn(2, 24), drawn(3, 24, True))


@pytest.fixture
def quick_judge(monkeypatch):
    """Fresh detectors that are hardly trained, for tests that do not ask what they find."""
    monkeypatch.setattr(quality_judge, "EPOCHS", 1)
    monkeypatch.setattr(quality_judge, "REPEATS", dict.fromkeys(quality_judge.REPEATS, 1))


def paths(side, count, start=0):
    return [Path(f"{number:03}_{side}_B.png") for number in range(start, start + count)]


@pytest.mark.parametrize(("real", "fake"), [((80, 0), (80, 0)), ((50, 0), (50, 0)), ((40, 0), (60, 100)), ((30, 0), (50, 10))])
def test_split_is_disjoint_exact_and_keeps_pairs(real, fake):
    real, fake = paths("real", *real), paths("fake", *fake)
    split = quality_data.split_set(real, fake)
    for side, files in (("real", real), ("fake", fake)):
        parts = [set(split[part][side]) for part in ("fit", "validation", "test")]
        assert sorted(set().union(*parts)) == files and sum(map(len, parts)) == len(files)
        assert set(split["development"][side]) == parts[0] | parts[1]
        assert abs(len(parts[2]) - len(files) / 2) <= 1 and abs(len(parts[0]) - len(parts[1])) <= 2
    kept = {path.name[:3]: part for part in ("fit", "validation", "test") for path in split[part]["real"]}
    assert all(kept.get(path.name[:3], part) == part for part in ("fit", "validation", "test") for path in split[part]["fake"])


def test_split_depends_on_names_alone():
    real, fake = paths("real", 50), paths("fake", 50)
    split = quality_data.split_set(real, fake)
    random.seed(1)
    np.random.seed(1)
    again = quality_data.split_set(random.sample(real, 50), random.sample(fake, 50))
    assert {part: sorted(sides["real"]) for part, sides in split.items()} == {p: sorted(s["real"]) for p, s in again.items()}
    assert [path.name[:3] for path in split["validation"]["real"]][:4] == ["006", "009", "012", "013"]  # for ever


def test_validation_does_not_read_the_test_images(demo):
    """They are no images at all here, and nobody notices until they are asked for."""
    held_out = quality_data.split_set(*(sorted((demo / "datasets/small" / side).iterdir()) for side in ("real", "fake")))["test"]
    for path in held_out["real"] + held_out["fake"]:
        path.write_bytes(b"untouched")
    assert len(quality_data.open_case("small", SIZE, "validation").real) == 8
    assert sorted(path.name for path in (demo / "datasets/quality/small_32").iterdir()) == ["fit", "validation"]
    with pytest.raises(UserError, match="cannot be read"):
        quality_data.open_case("small", SIZE, "test")


def test_crops_are_native_pixels_and_go_with_their_source(demo):
    case = quality_data.open_case("small", 16, "test")
    assert (len(case.fit_real), len(case.real)) == (16, 16)
    source = quality_data.read_image(demo / "datasets/small/real" / case.real.names[0])
    assert torch.equal(case.real.pixels[0], source[:, 8:24, 8:24])
    changed = demo / "datasets/small/real" / case.real.names[0]
    kept = changed.read_bytes()
    Image.new("RGB", (SIZE, SIZE)).save(changed)
    with pytest.raises(UserError, match="delete it"):
        quality_data.open_case("small", 16, "test")
    changed.write_bytes(kept)
    quality_data.open_case("small", 16, "test")
    quality_data.make_demo("datasets/more", 1, SIZE, seed=4)
    for side in ("real", "fake"):
        (demo / "datasets/more" / side / "0000.png").rename(demo / "datasets/small" / side / "new.png")
    with pytest.raises(UserError, match="delete it"):
        quality_data.open_case("small", 16, "test")


def test_calls_at_once_make_the_same_crops(demo, monkeypatch):
    """The second is done before the first, which finds its folder there."""
    write, case = quality_data.write_png, []

    def meanwhile(path, image):
        write(path, image)
        if not case:
            monkeypatch.setattr(quality_data, "write_png", write)
            case.append(quality_data.open_case("small", SIZE, "validation"))

    monkeypatch.setattr(quality_data, "write_png", meanwhile)
    again = quality_data.open_case("small", SIZE, "validation")
    assert torch.equal(again.real.pixels, case[0].real.pixels) and again.fake.names == case[0].fake.names
    assert sorted(path.name for path in (demo / "datasets/quality/small_32").iterdir()) == ["fit", "validation"]


def test_sets_that_are_missing_or_small_are_refused(demo):
    with pytest.raises(UserError, match="nothing does not exist"):
        quality_data.open_case("nothing", SIZE, "test")
    make_demo("datasets/tiny", 20, SIZE)
    with pytest.raises(UserError, match="5 images"):
        quality_data.open_case("tiny", SIZE, "validation")


def test_judge_finds_the_fakes_and_nothing_in_other_reals(case):
    judge = quality_judge.Judge(case)
    fake, floor = judge(case.fake), judge(drawn(4, 24))
    for detector in quality_judge.CLASSICAL + quality_judge.CNNS:
        low, high = floor[f"{detector}_interval"]
        assert low <= 0.5 <= high and 0.3 < floor[detector] < 0.7
        assert fake[detector] > 0.85 and fake[f"seen_{detector}"] > 0.8
        assert abs(floor[f"seen_{detector}"] - 0.5) < 0.1
    for column in ("lfd", "lfd_8bit", "mean_gap", "gap", "gap_upper"):
        assert floor[column] < fake[column]
    judge.detectors = (*quality_judge.CLASSICAL, "cnn")
    assert judge(case.fake).items() < fake.items()  # nothing is left over from another row


def test_judge_of_the_reals_themselves(case):
    numbers = quality_judge.Judge(case, quality_judge.CLASSICAL)(case.real)
    assert all(numbers[column] == 0 for column in ("lfd", "mean_gap", "gap", "spread"))
    assert not {"cnn", "cnn_opponent", "psnr"} & set(numbers) and not any(name.startswith("kid") for name in numbers)
    flat = Images(case.real.names, case.real.pixels * 0 + 0.5)
    assert quality_judge.Judge(case, quality_judge.CLASSICAL)(flat)["spread"] > 0.1


def test_the_floor_has_as_many_photographs_as_a_row_has_images(case):
    """Of fewer the mean is farther from any other, and a row is measured beside it."""
    few = dataclasses.replace(case, fake=case.fake.take(6))
    found = [quality_judge.Judge(each, ()).floor()["lfd"] for each in (few, case)]
    assert found[0] == quality_judge.Judge(few, ())(case.fit_real.take(6))["lfd"] > found[1]


def test_distances_of_a_network_s_features(case):
    networks = {"inception": lambda image: image[..., ::31, ::31].flatten(1).numpy()}
    judge = quality_judge.Judge(case, (), networks)
    numbers, darker = judge(case.real), judge(Images(case.real.names, case.real.pixels / 4))
    assert numbers["fid_inception"] < 1e-6 and abs(numbers["kid_inception"]) < 0.2
    assert darker["fid_inception"] > 0.1 and darker["kid_inception"] > numbers["kid_inception"] + 0.1


def test_folds_keep_scenes_together():
    real, other = [f"s{number}" for number in range(20)], [f"s{number}" for number in range(10, 30)]
    folds = [
        dict(zip(scenes, fold, strict=True))
        for scenes, fold in zip((real, other), quality_judge.fold_of_scenes(real, other, 5, 0), strict=True)
    ]
    assert all(folds[0][scene] == folds[1][scene] for scene in real[10:])
    assert all(np.bincount(list(fold.values())).tolist() == [4] * 5 for fold in folds)
    odd = quality_judge.fold_of_scenes("abcdefg", "ahijklm", 5, 0)
    assert all(sorted(np.bincount(fold).tolist()) == [1, 1, 1, 2, 2] for fold in odd)


@pytest.mark.usefixtures("quick_judge")
def test_closed_form_rows_end_to_end(demo, monkeypatch, capsys):
    def halved(real, fake, device):
        assert len(real) == len(fake) == 8 and real.shape[1:] == (3, SIZE, SIZE)
        return lambda image: image / 2

    monkeypatch.setitem(quality_rows.ROWS, "halved", halved)
    arguments = ["--sets", "small", "--size", str(SIZE), "--rows", "fake,shrunk,halved,floor", "--quick", "--device", "cpu"]
    quality.main([*arguments, "--pictures"])
    rows = read_json("results/quality/validation_32_quick.json")["small"]["rows"]
    psnr = {row: rows[row]["-"].get("psnr") for row in rows}
    assert psnr["fake"] is psnr["floor"] is None and 8 < psnr["halved"] < 16 < psnr["shrunk"]
    assert rows["shrunk"]["-"]["mean_gap"] < rows["fake"]["-"]["mean_gap"]
    assert "halved" in capsys.readouterr().out and Path("results/quality/quality_small_32_validation_halved.png").is_file()

    judged = []
    judge = quality_judge.Judge.__call__
    monkeypatch.setattr(quality_judge.Judge, "__call__", lambda self, row, **how: judged.append(row) or judge(self, row, **how))
    picture = Path("results/quality/quality_small_32_validation_halved.png")
    picture.unlink()
    quality.main([*arguments, "--pictures"])
    assert not judged and picture.is_file()  # all is known, but pictures were asked for
    monkeypatch.setitem(quality_rows.ROWS, "halved", functools.partial(halved))
    quality.main(arguments)
    assert not judged
    changed = Path("changed.py")
    changed.write_text("another fit")
    monkeypatch.setattr(quality_filters, "__file__", str(changed))
    quality.main(arguments)
    assert len(judged) == 2  # by other code: shrunk and halved, but not fake and floor
    image = next(Path("datasets/quality/small_32/validation/fake").iterdir())
    image.write_bytes(Path("datasets/small/fake", image.name).with_name("0000.png").read_bytes())
    capsys.readouterr()
    quality.main(arguments)
    assert len(judged) == 6 and capsys.readouterr().err.count("they are dropped") == 1  # of other images


def test_code_that_decides_is_found_by_its_imports():
    """Numbers are kept while its hash is the same: a module that is not in it could change them and nobody would notice."""
    judge, closed_form, trained = (
        {module.__name__ for module in modules_behind(first)} for first in (quality_judge, quality_filters, refiners)
    )
    assert {"benchmarks.quality_judge", "benchmarks.quality_data", "models.batch_norm", "utils.chunks", "utils.pictures"} <= judge
    assert {"benchmarks.quality_filters", "utils.filters", "utils.polyphase", "utils.transport", "utils.fft"} <= closed_form
    assert {"models.refiners", "models.stig", "models.nested_unet", "utils.rounding"} <= trained
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in SILENT)
    assert not SILENT & (judge | closed_form | trained)


def test_other_code_of_the_judge_is_another_fingerprint(case, monkeypatch, tmp_path):
    (tmp_path / "changed.py").write_text("other code")
    before = quality.fingerprint(case, None)
    assert before == quality.fingerprint(case, None) != quality.fingerprint(case, "weights")
    for module in modules_behind(quality_judge):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(tmp_path / "changed.py"))
            assert quality.fingerprint(case, None) != before, module


def test_calls_at_once_keep_each_other_s_rows(tmp_path, capsys):
    path, new = tmp_path / "test.json", {"made_by": "x", "settings": {}, "rows": {}, "refiners": {}}
    made = {"how": "a", "weights": "1"}
    threads = [
        threading.Thread(target=quality.keep, args=(path, "small", copy.deepcopy(new), f"row{n % 4}", str(n), {"lfd": n}, made))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_json(path)["small"]["rows"]
    assert {seed: numbers["lfd"] for seeds in rows.values() for seed, numbers in seeds.items()} == {str(n): n for n in range(16)}
    record = quality.keep(path, "small", new, "row0", "99", {"lfd": 0}, made | {"how": "b"})
    assert set(record["rows"]["row0"]) == {"99"} and len(record["rows"]["row1"]) == 4  # no mean over different trainings
    assert "small, row0: seeds made by other code are dropped (0, 12, 4, 8)" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_figures", "quick_judge")
def test_trained_rows_are_trained_once(demo, monkeypatch, capsys):
    arguments = ["--sets", "small", "--size", "16", "--rows", "base_identity", "--seeds", "0,1", "--quick", "--device", "cpu"]
    arguments += ["--lr", "0.01", "--width", "8"]
    results = quality.main([*arguments, "--epoch", "1", "--lambda_nce", "0"])
    seeds = results["small"]["rows"]["base_identity"]
    assert set(seeds) == {"0", "1"} and seeds["0"]["psnr"] != seeds["1"]["psnr"] and seeds["0"]["psnr_identity"] > 20
    assert " ± " in capsys.readouterr().out
    monkeypatch.setattr(quality_rows.train, "main", None)
    judged = []
    monkeypatch.setattr(quality, "judge_refiner", lambda *_: judged.append(1) or seeds["0"])
    quality.main([*arguments, "--epoch", "1", "--lambda_nce", "0"])
    assert not judged
    options, device = quality.parse([*arguments, "--epoch", "1", "--lambda_nce", "0"]), torch.device("cpu")
    case = quality_data.open_case("small", 16, "validation")
    made = quality_rows.prepare_row("base_identity", "0", case, options.train, device)[0]
    Path("changed.py").write_text("other code")
    for module in (stig, nested_unet, refiners, filters, polyphase, aliases, lifter, linear_filter):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", "changed.py")
            other = quality_rows.prepare_row("base_identity", "0", case, options.train, device)[0]
        assert other["how"] != made["how"] and other["weights"] == made["weights"], module
    first, second = (Path(f"results/quality/small_16_validation_base_identity_{seed}/checkpoint.pt") for seed in "01")
    first.write_bytes(second.read_bytes())
    quality.main([*arguments, "--epoch", "1", "--lambda_nce", "0"])
    assert len(judged) == 1  # another checkpoint
    assert "epoch = 1, not 2" in told(quality.main, [*arguments, "--epoch", "2", "--lambda_nce", "0"], capsys)
    path = Path("datasets", case.folders[0], "real", case.fit_real.names[0])
    Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(UserError, match=r"was trained on other images than are in datasets/quality/small_16"):
        quality_rows.prepare_row("base_identity", "0", case, options.train, device)


@pytest.mark.usefixtures("quick_judge")
def test_documents_get_what_was_judged_in_this_call(demo, monkeypatch, tmp_path):
    """Other sets and rows of the file may be of older code."""
    monkeypatch.setattr(quality, "DOCS", tmp_path)
    page = tmp_path / "quality_tables.md"
    page.write_text(f"<!-- test {SIZE}: begin -->\n<!-- test {SIZE}: end -->\n")
    shutil.copytree("datasets/small", "datasets/second")
    command = ["--size", str(SIZE), "--part", "test"]
    quality.main([*command, "--sets", "small,second", "--rows", "fake,floor"])
    results = quality.main([*command, "--sets", "small", "--rows", "linear,floor", "--write_docs"])
    assert results.keys() == {"small", "second"} and results["small"]["rows"].keys() == {"fake", "floor", "linear"}
    text = page.read_text()
    assert "second" not in text and "| linear " in text and "| fake " not in text


def test_options_without_a_use_are_refused(capsys):
    for arguments, words in (
        (["--rows", "fake,other"], "'other' is none of fake, floor"),
        (["--lr", "1"], "--lr is no option"),
        (["--rows", "default", "--bogus", "1"], "--bogus"),
        (["--part", "test", "--write_docs", "--quick"], "leave --quick out"),
    ):
        assert words in told(quality.parse, arguments, capsys)


def test_docs_keep_the_text_around_the_tables(tmp_path):
    page = tmp_path / "quality_tables.md"
    page.write_text("before\n<!-- test 32: begin -->\nold\n<!-- test 32: end -->\nafter\n")
    quality_report.write_docs(page, "test 32", "new")
    assert page.read_text() == "before\n<!-- test 32: begin -->\n\nnew\n\n<!-- test 32: end -->\nafter\n"
    with pytest.raises(UserError, match="test 64: begin"):
        quality_report.write_docs(page, "test 64", "new")


@pytest.mark.usefixtures("quick_judge")
def test_filters_fitted_on_ever_more_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = fitting_size.main(["--counts", "8,12", "--judged", "8", "--size", "16"])
    assert list(rows) == [f"{kind}, {count} images" for count in (8, 12) for kind in FILTERS] + ["fake", "floor"]
    assert rows["linear, 12 images"]["psnr"] > rows["linear, 8 images"]["psnr"]
    assert rows["cepstral, 8 images"]["psnr"] > rows["linear, 8 images"]["psnr"] + 1
    assert "| cepstral, 12 images" in capsys.readouterr().out
    home = tmp_path / "datasets/quality/fitting_16_20"
    for name, first in (("many", 8), ("others", 0)):  # the same images, as sets that are there
        for side in ("real", "fake"):
            for path in sorted((home / side).iterdir())[first : first + (12 if first else 8)]:
                target = tmp_path / "datasets" / name / side / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    named = fitting_size.main(["--data", "many", "--test_data", "others", "--counts", "12", "--judged", "8", "--size", "16"])
    assert named["linear, 12 images"]["lfd"] == pytest.approx(rows["linear, 12 images"]["lfd"], rel=1e-6)
    command = ["--data", "many", "--test_data", "others", "--counts", "13", "--size", "16", "--judged", "8"]
    assert "holds 12 images; 13 are needed" in told(fitting_size.main, command, capsys)


@pytest.mark.usefixtures("quick_judge")
def test_random_halves_keep_pairs_together_and_rows_are_compared_within_them(demo, capsys, monkeypatch):
    results = splits.main(["--sets", "small", "--splits", "3", "--size", str(SIZE), "--rows", "fake,linear,cepstral,floor"])[
        "small"
    ]
    halves = []
    for split in range(3):
        home = demo / f"datasets/quality/small_split{split}_{SIZE}"
        found = {part: {path.name for path in (home / part / "real").iterdir()} for part in ("development", "test")}
        for part, names in found.items():
            assert {path.name for path in (home / part / "fake").iterdir()} == names and len(names) == 16
        assert not found["development"] & found["test"]
        halves.append(found["test"])
    assert len(set(map(frozenset, halves))) == 3
    out = capsys.readouterr().out
    lfd = np.array([[numbers[row]["lfd"] for row in ("linear", "cepstral", "floor")] for numbers in results])
    differences = lfd - lfd[:, [2]]
    values, against = ([line for line in out.splitlines() if line.startswith("| cepstral")][place] for place in (0, 1))
    assert f"| {lfd[:, 1].mean():.3f} ± {lfd[:, 1].std(ddof=1):.3f} " in values
    assert f"| {differences[:, 1].mean():.3f} ± {differences[:, 1].std(ddof=1):.3f} " in against
    gaps = [np.mean([numbers[row]["gap_upper"] for numbers in results]) for row in ("cepstral", "floor")]
    assert f" {gaps[0] / gaps[1]:.2f} " in against
    rows = ["--rows", "linear,polyphase,polyphase8", "--eighths", "--imagenet"]
    networks = {"imagenet": lambda image: image.mean((2, 3)).numpy(), "imagenet_mag": lambda image: image.std((2, 3)).numpy()}
    monkeypatch.setattr(splits, "NETWORKS", networks)
    monkeypatch.setattr(splits, "load_imagenet", lambda: None)
    again = splits.main(["--sets", "small", "--splits", "2", "--size", str(SIZE), *rows])["small"]
    for numbers, before in zip(again, results, strict=False):
        assert numbers["linear"].items() > before["linear"].items() and "coherence8" in numbers["linear"]
        assert numbers["polyphase8"]["lfd"] != numbers["polyphase"]["lfd"]
    out = capsys.readouterr().out
    assert "fresh coherence8 | fakes' coherence8 |" in out and "| KID, ImageNet " in out and "| KID, ImageNet, magnitudes |" in out


def test_a_half_that_is_too_small_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_demo("datasets/small", 12, SIZE, seed=3)
    said = told(splits.main, ["--sets", "small", "--splits", "2", "--size", SIZE], capsys)
    assert "is 6 images; 7 are needed" in said


def test_what_rounding_adds_is_told(demo, capsys):
    for path in Path("datasets/small").glob("*/*.png"):  # pale colours, which rounding drowns
        grey = np.asarray(Image.open(path)).astype(float)
        Image.fromarray((0.9 * grey.mean(2, keepdims=True) + 0.1 * grey).round().astype(np.uint8)).save(path)
    rows = rounding.main(["--data", "small", "--size", str(SIZE)])
    assert len(rows) == 15 and "| green against both, ring 20 |" in capsys.readouterr().out
    plain, ours = (
        [rows[f"red - blue, ring {ring}"][column] - rows[f"red - blue, ring {ring}"]["refined, not rounded"] for ring in (12, 16)]
        for column in ("rounded", "compensated and rounded")
    )
    assert min(plain) > 0.03 and all(abs(after) < 0.7 * before for before, after in zip(plain, ours, strict=True))
    assert abs(rows["grey, ring 8"]["refined, not rounded"]) < 0.2 < rows["grey, ring 8"]["photographs"]
    assert "nowhere" in told(rounding.main, ["--data", "nowhere"], capsys)


def test_what_the_protocol_sets_is_not_to_be_given(capsys):
    assert "--dst is not for you to give" in told(quality.parse, ["--rows", "default", "--dst=mine"], capsys)
