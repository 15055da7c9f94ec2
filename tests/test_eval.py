"""eval.py end to end on small folders, and the Inception statistics behind FID and KID."""

import contextlib
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import inception as pytorch_fid_inception
from small import Trap, told

import eval as eval_script
from data import listing
from options import parse_eval
from utils import inception, plots
from utils.fft import image_to_mag
from utils.files import file_hash
from utils.pictures import write_png

NAMES = {
    "image_fid": ["image_fid", "image_kid", "image_kid_std"],
    "magnitude_fid": ["magnitude_fid", "magnitude_kid", "magnitude_kid_std"],
    "lfd": ["lfd_8bit", "lfd", "lfd_8bit_spread", "lfd_spread"],
    "psd": ["gap", "gap_upper", "gap_spread", "gap_upper_spread"],
}
NAMES["all"] = [name for names in NAMES.values() for name in names]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """results/run/eval with 4 real, 5 fake and 5 refined images and their magnitude pictures; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(1)
    checkerboard = torch.ones(32, 32)
    checkerboard[::2, 1::2] = checkerboard[1::2, ::2] = -1
    for role, count, strength in (("real", 4, 0.0), ("fake", 5, 0.2), ("refined", 5, 0.002)):
        for index in range(count):
            noise = torch.rand(3, 32, 32, generator=generator)
            image = ((0.25 + 0.5 * noise + strength * checkerboard).clamp(0, 1) * 255).round() / 255
            write_png(tmp_path / f"results/run/eval/{role}/{index}.png", image)
            write_png(tmp_path / f"results/run/eval/{role}_mag/{index}.png", (image_to_mag(image[None])[0][0] + 1) / 2)
    return tmp_path / "results" / "run"


def folders(run):
    return [part for role in ("real", "fake", "refined") for part in (f"--{role}", str(run / "eval" / role))]


def measure(*arguments, **options):
    extra = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return eval_script.main([*map(str, arguments), *extra, "--device", "cpu"])


def fails(capsys, *arguments, **options):
    return told(lambda arguments: measure(*arguments, **options), arguments, capsys)


def test_an_evaluation_that_was_not_finished_is_told(run, capsys):
    measure(eval_root="run", eval_mode="lfd")
    assert "closing evaluation" not in capsys.readouterr().err  # of a folder that no training made
    (run / "options.json").write_text("{}")
    result = measure(eval_root="run", eval_mode="lfd")
    assert "has no report.md: its closing evaluation was not finished" in capsys.readouterr().err
    assert any("report.md" in warning for warning in result["warnings"])
    (run / "report.md").touch()
    measure(eval_root="run", eval_mode="lfd")
    assert "closing evaluation" not in capsys.readouterr().err


def test_results_may_not_lie_among_the_images(run, capsys):
    """A picture of profiles would be measured the next time."""
    told = fails(capsys, *folders(run), out=run / "eval/fake/mine.json", eval_mode="psd")
    assert "eval/fake/mine.json would lie among the images of" in told
    told = fails(capsys, *folders(run), dst="run/eval/real", eval_mode="lfd")
    assert "run/eval/real/eval_lfd.json would lie among the images" in told
    same = ["--real", run / "eval/real", *(part for side in ("fake", "refined") for part in (f"--{side}", run / "eval/fake"))]
    assert "is given for --fake and for --refined" in fails(capsys, *same, eval_mode="lfd", dst="same")


@pytest.mark.parametrize("mode", ["lfd", "psd", "all"])
def test_a_run(run, weights, capsys, mode):
    needed = {"inception_weights": weights} if mode == "all" else {}
    result = measure("--eval_root", "run", eval_mode=mode, **needed)
    printed = capsys.readouterr()
    assert json.loads((run / f"eval_{mode}.json").read_text()) == result
    assert (run / f"eval_{mode}.png").is_file() == (mode in ("psd", "all"))
    rows = result["rows"]
    assert [line.split("|")[1].strip() for line in printed.out.splitlines()[2:5]] == ["fake", "refined", "floor"] == list(rows)
    for role, counts in (("fake", [4, 5]), ("refined", [4, 5]), ("floor", [2, 2])):
        assert rows[role]["n"] == counts
        assert set(rows[role]) - {"n"} == {name for name in NAMES[mode] if role == "floor" or not name.endswith("_spread")}
    assert "lower is better" in printed.out.lower() and result["direction"] == "lower is better"
    assert result["size"] == [32, 32] and result["versions"]["torch"] == torch.__version__.split("+")[0]
    if mode == "all":
        assert "2048" in printed.err
        assert result["backend"]["weights_sha256"] == file_hash(weights)
        assert result["backend"]["magnitudes"] == "saved pictures"
    if mode != "psd":
        assert rows["fake"]["lfd"] > rows["refined"]["lfd"] > 0
    if mode != "lfd":
        assert len(result["profiles"]["real"]) == 17


def test_magnitude_fid_is_the_default_and_the_same_from_images(run, weights):
    """From the saved pictures, and computed from the images in other batches: one number."""
    saved = measure("--eval_root", "run", inception_weights=weights)
    assert saved["mode"] == "magnitude_fid"
    computed = measure(*folders(run), inception_weights=weights, dst="other", batch_size=2)
    assert computed["backend"]["magnitudes"] == "computed from the images"
    for role, row in saved["rows"].items():
        assert row["magnitude_fid"] > 0
        for name in NAMES["magnitude_fid"]:
            assert computed["rows"][role][name] == pytest.approx(row[name], rel=1e-4, abs=1e-6)


def test_statistics_are_cached_until_an_image_changes(run, weights, monkeypatch, capsys):
    arguments = {"eval_mode": "image_fid", "inception_weights": weights}
    first = measure("--eval_root", "run", **arguments)
    calls = []  # sizes of the batches that went through the network
    original = inception.inception_features
    monkeypatch.setattr(inception, "inception_features", lambda *given: calls.append(len(given[1])) or original(*given))
    assert measure("--eval_root", "run", **arguments)["rows"] == first["rows"]
    assert calls == []
    shutil.copy(run / "eval/fake/0.png", run / "eval/refined/0.png")
    damaged = next((run / "statistics").glob("inception_real_*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    changed = measure("--eval_root", "run", **arguments)
    assert calls == [4, 5]
    assert changed["rows"]["fake"] == first["rows"]["fake"] and changed["rows"]["floor"] == first["rows"]["floor"]
    assert changed["rows"]["refined"] != first["rows"]["refined"]


@pytest.mark.parametrize("place", ["method", "flags"])
def test_statistics_that_cannot_be_unpacked_are_made_again(tmp_path, place):
    path = tmp_path / "x.npz"
    np.savez(path, features=np.zeros((2, 3)), total=2)
    content = bytearray(path.read_bytes())
    for entry in (content.index(b"PK\3\4"), content.index(b"PK\1\2")):
        start = entry + (0 if content[entry + 2] == 3 else 2) + {"method": 8, "flags": 6}[place]
        content[start : start + 2] = b"\x63\x00" if place == "method" else b"\x21\x00"  # an unknown method; encrypted
    path.write_bytes(content)
    assert inception.cached_statistics(path) is None


def test_statistics_of_names_of_any_bytes():
    paths = listing.ImagePaths("x", [os.fsdecode(b"\xff.png"), "b.png"])
    paths.content = lambda index: b"content"
    assert inception.statistics_name(paths).startswith("inception_x_")


def test_an_images_features_do_not_depend_on_the_batch(weights):
    state = torch.get_rng_state()
    network = inception.load_inception(weights)
    assert torch.equal(state, torch.get_rng_state())  # a training that loads it to be scored goes on as it was
    image = torch.rand(3, 3, 32, 32)
    together = inception.inception_features(network, image)
    alone = np.concatenate([inception.inception_features(network, image[i : i + 1]) for i in range(3)])
    assert together.shape == (3, 2048) and together.std(0).mean() > 1e-3
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4 * together.max())


def test_pytorch_fid_downloads_as_before_once_the_weights_are_loaded():
    """Whether they could be loaded or not."""
    own = pytorch_fid_inception.load_state_dict_from_url
    with contextlib.suppress(KeyError), inception._weights_instead_of_download({"of": "a file"}):
        assert pytorch_fid_inception.load_state_dict_from_url("an address") == {"of": "a file"}
        raise KeyError
    assert pytorch_fid_inception.load_state_dict_from_url is own


@pytest.mark.parametrize("kept", [10_000, 30])
def test_statistics_count_every_image_and_survive_the_file(tmp_path, monkeypatch, kept):
    """With fewer kept features than images the moments still count all, in halves."""
    monkeypatch.setattr(inception, "KEPT_FEATURES", kept)
    monkeypatch.setattr(inception, "DIMENSIONS", 16)
    features = np.random.default_rng(0).normal(size=(101, 8)).astype(np.float32)
    made, otherwise = inception.FeatureStatistics(101), inception.FeatureStatistics(101)
    for statistics, count in ((made, 13), (otherwise, 7)):
        for start in range(0, 101, count):
            statistics.update(features[start : start + count])
    made.save(tmp_path / "made.npz")
    read = inception.FeatureStatistics.load(tmp_path / "made.npz")
    for other in (otherwise, read):  # to the last bit, whatever the size of batches
        assert all(
            np.array_equal(getattr(made.moments(half), n), getattr(other.moments(half), n))
            for half in (0, 1)
            for n in ("mean", "scatter")
        )
    for statistics in (made, read):
        moments = statistics.moments()
        assert moments.count == 101
        assert {statistics.moments(half).count for half in (0, 1)} == {50, 51}
        np.testing.assert_allclose(moments.mean, features.astype(float).mean(0), atol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(features.astype(float), rowvar=False), atol=1e-12)
        assert len(statistics.features()) == min(kept, 101)
        assert len(statistics.features(0)) + len(statistics.features(1)) == min(kept, 101)
        if kept > 101:
            np.testing.assert_allclose(statistics.features(0).mean(0), statistics.moments(0).mean, atol=1e-6)


def test_without_weights_or_network(run, monkeypatch, capsys, tmp_path):
    """The error comes before any image is read and names the file, the address and the option."""
    address = "http://127.0.0.1:9/pt_inception-2015-12-05-6726825d.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(pytorch_fid_inception, "FID_WEIGHTS_URL", address)
    monkeypatch.setattr(eval_script, "load_folder", lambda *_, **__: pytest.fail("images were read first"))
    message = fails(capsys, "--eval_root", "run", eval_mode="image_fid")
    assert message.count("\n") == 1
    assert all(part in message for part in ("pt_inception-2015-12-05-6726825d.pth", address, "--inception_weights"))
    assert not list((tmp_path / "torch").rglob("*.pth")) and not list(run.glob("*.json"))


def test_weights_in_torchs_cache_are_used(run, weights, monkeypatch, tmp_path):
    cached = tmp_path / "torch/hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert inception.find_weights() == cached


def test_wrong_weights(run, tmp_path, capsys):
    trapped, other, text = tmp_path / "trap.pth", tmp_path / "other.pth", tmp_path / "text.pth"
    torch.save({"weight": Trap(tmp_path / "sprung")}, trapped)
    torch.save({"weight": torch.ones(3)}, other)
    text.write_text("no weights")
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    not_finite = tmp_path / "nan.pth"
    torch.save({"weight": torch.full((3,), float("nan"))}, not_finite)
    for path in (trapped, other, text, plain, not_finite):
        message = fails(capsys, "--eval_root", "run", eval_mode="image_fid", inception_weights=path)
        assert str(path) in message and message.count("\n") == 1
    assert not (tmp_path / "sprung").exists()
    assert "--inception_weights" in fails(capsys, "--eval_root", "run", eval_mode="all", inception_weights=tmp_path / "none.pth")


def test_images_of_several_sizes(run, capsys):
    Image.new("RGB", (48, 40)).save(run / "eval/fake/wide.png")
    assert "wide.png" in fails(capsys, "--eval_root", "run", eval_mode="lfd")
    assert "wide.png" in fails(capsys, "--eval_root", "run", eval_mode="lfd", size=32, fit="none")
    for fit in ("crop", "resize"):
        assert measure("--eval_root", "run", eval_mode="lfd", size=32, fit=fit)["count"]["fake"] == 6


def test_size_applies_to_the_images_and_not_to_the_magnitude_pictures(run):
    for arguments, found in ([], True), (["--size", "16", "--fit", "crop"], False):
        options = parse_eval(["--eval_root", "run", *arguments])
        paths, _, _ = eval_script.plan(options)
        images, _ = eval_script.open_folders(paths, options, at_least=1)
        assert images["real"][0].shape == ((3, 32, 32) if found else (3, 16, 16))
        assert (eval_script.open_magnitudes(paths, images, options) is not None) == found


def test_unreadable_images(run, capsys):
    (run / "eval/fake/broken.png").write_bytes(b"not an image")
    assert "broken.png" in fails(capsys, "--eval_root", "run", eval_mode="psd")
    assert not (run / "eval_psd.json").exists()
    assert measure("--eval_root", "run", "--skip_bad", eval_mode="psd")["count"]["fake"] == 5


def test_pictures_of_images_that_were_replaced_are_not_used(run, weights):
    shutil.copy(run / "eval/real/0.png", run / "eval/refined/0.png")
    result = measure("--eval_root", "run", inception_weights=weights)
    assert result["backend"]["magnitudes"] == "computed from the images"


def test_stale_magnitude_pictures(run, weights, capsys):
    (run / "eval/fake_mag/0.png").rename(run / "eval/fake_mag/9.png")
    assert "fake_mag" in fails(capsys, "--eval_root", "run", inception_weights=weights)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--eval_root"),
        (["--eval_root", "run", "--real", "x"], "one or the other"),
        (["--real", "x", "--fake", "y"], "--dst"),
        (["--real", "x", "--fake", "y", "--dst", "z", "--eval_mode", "lfd"], "x does not exist"),
        (["--eval_root", "missing", "--eval_mode", "lfd"], "train.py"),
        (["--eval_root", "../elsewhere", "--eval_mode", "lfd"], "elsewhere"),
        (["--eval_root", "run", "--dst", "../elsewhere", "--eval_mode", "lfd"], "does not name a folder"),
        (["--eval_root", "run", "--out", "result.txt"], ".json"),
        (["--eval_root", "run", "--eval_mode", "lfd", "--out", "results/run/eval/real/0.png/result.json"], "0.png is a file"),
        (["--eval_root", "run", "--eval_mode", "lfd", "--out", "results/taken.json"], "taken.json is a folder"),
        (["--eval_root", "run", "--eval_mode", "ssim"], "ssim"),
        (["--eval_root", "run", "--size", "8"], "at least 16"),
        (["--eval_root", "run", "--batch_size", "0"], "at least 1"),
    ],
)
def test_wrong_options(run, capsys, arguments, part):
    Path("results/taken.json").mkdir()
    assert part in fails(capsys, *arguments)


def test_wrong_device_and_too_few_images(run, weights, capsys):
    assert "99" in told(eval_script.main, ["--eval_root", "run", "--eval_mode", "lfd", "--device", "99"], capsys)
    for path in list((run / "eval/real").iterdir())[1:]:
        path.unlink()
    result = measure("--eval_root", "run", eval_mode="lfd")
    assert list(result["rows"]) == ["fake", "refined"] and "no floor" in result["warnings"][0]
    assert "floor" not in capsys.readouterr().out
    said = fails(capsys, "--eval_root", "run", eval_mode="image_fid", inception_weights=weights)
    assert "holds 1 of the 4 images" in said


def test_images_that_their_refiner_was_made_with_are_told(run, capsys):
    (run / "eval/options.json").write_text('{"seen": 3, "refiner": "x"}')
    result = measure("--eval_root", "run", eval_mode="lfd")
    assert ["was made with 3 of the images" in text for text in result["warnings"]] == [True]


def test_out_file_workers_and_batches(run, tmp_path):
    """Two reading processes and another batch size: the same numbers, in the named file."""
    first = measure(*folders(run), eval_mode="lfd", out=tmp_path / "deep" / "one.json", batch_size=1)
    second = measure(*folders(run), eval_mode="lfd", out=tmp_path / "deep" / "two.json", batch_size=4, num_workers=2)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["one.json", "two.json"]
    for role, row in first["rows"].items():
        assert row["lfd"] == pytest.approx(second["rows"][role]["lfd"], rel=1e-9)


def test_out_replaces_results_alone(run, tmp_path, capsys):
    out = tmp_path / "one.json"
    measure(*folders(run), eval_mode="lfd", out=out)
    measure("--real", str(run / "eval/real"), "--fake", str(run / "eval/refined"), eval_mode="psd", out=out)
    folders_of = (json.dumps({"mode": "lfd", "rows": {}, "folders": wrong}) for wrong in (["a"], {"real": 3}, "x"))
    for text in ('{"train_real": []}', "{}", "[1]", "a diary", *folders_of):
        out.write_text(text)
        assert f"{out} is" in (told := fails(capsys, *folders(run), eval_mode="lfd", out=out)) and "another --out" in told
        assert out.read_text() == text


def test_another_picture_beside_a_result_without_one_is_kept(run, tmp_path, capsys):
    out, mine = tmp_path / "holiday.json", tmp_path / "holiday.png"
    mine.write_bytes(b"mine")
    measure(*folders(run), eval_mode="lfd", out=out)
    assert f"{mine} is there and would become" in fails(capsys, *folders(run), eval_mode="psd", out=out)
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    for mode in ("psd", "lfd", "psd"):  # a picture of ours goes with its result
        measure(*folders(run), eval_mode=mode, out=out)
        assert mine.exists() == (mode == "psd")


def test_a_result_stopped_beside_its_picture_is_made_again(run, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    out, write = tmp_path / "one.json", plots.profile_figure
    for stopped in (stop, lambda *given: (write(*given), stop())):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(plots, "profile_figure", stopped)
            measure(*folders(run), eval_mode="psd", out=out)
    measure(*folders(run), eval_mode="psd", out=out)


def test_one_folder_is_not_both_classes(run, capsys):
    told = fails(capsys, real=run / "eval/real", fake=run / "eval/../eval/real", eval_mode="lfd", out="same.json")
    assert "is given for both classes" in told and not Path("same.json").exists()
    told = fails(capsys, real=run / "eval/real", fake=run / "eval/fake", eval_mode="lfd", out="same.json", dst="same")
    assert "--dst and --out both say" in told and not Path("results/same").exists()


def test_the_photographs_are_not_the_refined_images(run, capsys):
    reals, fakes = str(run / "eval/real"), str(run / "eval/fake")
    told = fails(capsys, "--real", reals, "--fake", fakes, "--refined", reals, eval_mode="lfd", out="same.json")
    assert "is given for both classes" in told and not Path("same.json").exists()


def test_a_folder_that_was_refined_in_part_is_told(run, capsys):
    assert not measure("--eval_root", "run", eval_mode="psd")["warnings"]
    assert str(run / "eval_psd.png").removeprefix(f"{Path.cwd()}/") in capsys.readouterr().out
    (run / "eval/refined/4.png").unlink()
    (warning,) = measure("--eval_root", "run", eval_mode="lfd")["warnings"]
    assert "4 refined images for 5 fakes" in warning and warning in capsys.readouterr().err


def test_a_result_of_other_folders_is_not_replaced(run, capsys):
    first = measure("--eval_root", "run", eval_mode="lfd")
    assert measure(*folders(run), eval_mode="lfd", dst="run")["rows"] == first["rows"]  # the same folders, by other names
    told = fails(capsys, *folders(run)[:4], eval_mode="lfd", dst="run")
    assert "eval_lfd.json is of other folders" in told and "choose another --dst or --out" in told
    assert json.loads((run / "eval_lfd.json").read_text())["rows"] == first["rows"]
    (run / "eval_lfd.json").write_text("[1]")
    assert "eval_lfd.json is damaged, it holds no JSON object" in fails(capsys, *folders(run), eval_mode="lfd", dst="run")


def test_weights_that_nothing_reads_are_refused(run, capsys):
    told = fails(capsys, "--eval_root", "run", eval_mode="lfd", inception_weights="some.pth")
    assert "--inception_weights: has no effect with --eval_mode lfd" in told
    assert "--fit: has no effect without --size" in fails(capsys, "--eval_root", "run", eval_mode="lfd", fit="crop")
