"""Tar shards in place of folders: the same images, so the same trainings, refined images and numbers."""

import io
import json
import os
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small import SMALL_NETWORK, draw, tar_of, told

import eval as eval_script
import inference
import train
from data import manifest, shards
from data.checking import check_images
from data.folder import load_folder
from data.listing import list_images
from data.shards import expand_pattern, is_shards, list_shards, shards_beside
from detect_commands.detect import copies_of_training
from gan_commands.shard import write_shards
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

LONG_AGO = 10**18  # ns


def content(seed, size=32, kind="PNG"):
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((size, size), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def pack(path, members):
    tar_of(path, members)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """datasets/plain with folders, and datasets/packed with the same images in shards."""
    root = tmp_path_factory.mktemp("house")
    for side, count, seed in (("real", 5, 1), ("fake", 4, 2)):
        members = {f"{index:02d}.png": content([seed, index]) for index in range(count)}
        for name, data in members.items():
            path = root / "datasets/plain" / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        names = list(members)  # dealt in turn, so that no shard holds neighbours
        for number in range(2):
            pack(root / f"datasets/packed/{side}-{number:06d}.tar", {name: members[name] for name in names[number::2]})
    return root


@pytest.fixture(autouse=True)
def inside(house, monkeypatch):
    monkeypatch.chdir(house)


def test_patterns(tmp_path, monkeypatch):
    assert expand_pattern("a-{008..011}.tar") == [f"a-{number}.tar" for number in ("008", "009", "010", "011")]
    assert expand_pattern("{a,b}-{0..1}.tar") == ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]
    assert expand_pattern("a.tar") == ["a.tar"] and expand_pattern("a-{7..7}.tar") == ["a-7.tar"]
    for numbers in ("3..1", "1..1000001"):
        with pytest.raises(UserError, match=r"counts down, or stands for more than 1000000 files"):
            expand_pattern(f"a-{{{numbers}}}.tar")
    assert is_shards("a-{0..1}.tar") and not is_shards("datasets")
    (tmp_path / "folder.tar").mkdir()
    assert not is_shards(tmp_path / "folder.tar")
    monkeypatch.setattr(shards, "MOST", 100)
    assert len(expand_pattern("a-{1..100}.tar")) == 100
    with pytest.raises(UserError, match="stands for more than 100 files"):
        expand_pattern("a-{0..100}.tar")


def test_folders_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        other, plain = tarfile.TarInfo("a.png"), tarfile.TarInfo("b.png")
        other.type, plain.size = tarfile.DIRTYPE, 4
        tar.addfile(other)
        tar.addfile(plain, io.BytesIO(b"data"))
    assert list_shards(tmp_path / "x.tar").names == ["b.png"]


def test_shards_are_read_as_the_folder_is(house):
    pattern = "datasets/packed/real-{000000..000001}.tar"
    packed, infos = load_folder(pattern, 32, cache_gb=0.1)
    plain, others = load_folder("datasets/plain/real", 32)
    assert packed.paths.names == plain.paths.names and packed.cached_gb
    assert all(torch.equal(packed[index], plain[index]) for index in [*range(5), *range(5)])
    assert [info.width for info in infos] == [info.width for info in others] and str(infos[3].path) == f"{pattern}/03.png"


def test_members_follow_webdataset(tmp_path):
    small = content(0, 16)
    members = {
        "./b/x.jpg": content(1, 16, "JPEG"),
        "./b/x.mask.png": small,  # of the same sample: not the first
        "./b/x.json": b"{}",
        "a.txt": b"text",
        "a.PNG": small,
        "._a.png": b"left by a file manager",
        "c.seg.png": small,
    }
    pack(tmp_path / "x.tar", members)
    assert list_shards(tmp_path / "x.tar").names == ["a.png", "b/x.jpg", "c.png"]
    dataset, infos = load_folder(tmp_path / "x.tar", None)
    assert [info.format for info in infos] == ["PNG", "JPEG", "PNG"] and len(dataset) == 3


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_an_image_that_is_no_plain_member_is_not_left_out_in_silence(tmp_path, kind):
    """So tar packs a file that it has packed under another name already."""
    pack(tmp_path / "x.tar", {"a.png": content(0, 16)})
    with tarfile.open(tmp_path / "x.tar", "a") as tar:
        for name in ("b.txt", "c.png"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png"
            tar.addfile(member)
    with pytest.raises(UserError, match=r"the member c\.png is a link, or no plain file"):
        list_shards(tmp_path / "x.tar")


def test_broken_shards_are_one_sentence(tmp_path, capsys):
    good = {f"{index}.png": content(index, 16) for index in range(3)}
    whole = pack(tmp_path / "a-0.tar", good)
    with pytest.raises(UserError, match=r"a-1\.tar does not exist"):
        list_shards(tmp_path / "a-{0..1}.tar")
    pack(tmp_path / "apart.tar", {name: content(9, 16) for name in ("x.jpg", "x.m/y.png", "x.png")})
    with pytest.raises(UserError, match=r"apart\.tar.x\.jpg and .*apart\.tar.x\.png have one key"):
        list_shards(tmp_path / "apart.tar")
    pack(tmp_path / "a-1.tar", {"2.png": content(9, 16)})
    with pytest.raises(UserError, match=r"a-0\.tar.2\.png and .*a-1\.tar.2\.png have one key"):
        list_shards(tmp_path / "a-{0..1}.tar")
    for name in ("../out.png", "/out.png"):
        with pytest.raises(UserError, match="leads out of the shard"):
            list_shards(pack(tmp_path / "out.tar", {name: content(0, 16)}))
    with pytest.raises(UserError, match="holds no PNG"):
        list_shards(pack(tmp_path / "none.tar", {"x.txt": b"text"}))
    (tmp_path / "text.tar").write_text("no tar at all" * 100)
    with pytest.raises(UserError, match=r"text\.tar cannot be read as a tar"):
        list_shards(tmp_path / "text.tar")
    with tarfile.open(whole) as tar:
        header = tar.getmembers()[2].offset
    for length in (100, 700, 1024, whole.stat().st_size // 3, header):
        (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:length])
        with pytest.raises(UserError, match=r"cut\.tar"):
            list_shards(tmp_path / "cut.tar")
    for damage in (b"!", bytes(512)):
        data = bytearray(whole.read_bytes())
        data[header + 5 : header + 5 + len(damage)] = damage
        (tmp_path / "hit.tar").write_bytes(data)
        with pytest.raises(UserError, match=rf"hit\.tar is damaged at byte {header}, behind its image 2"):
            list_shards(tmp_path / "hit.tar")
    (tmp_path / "joined.tar").write_bytes(2 * whole.read_bytes())
    with pytest.raises(UserError, match="several tars in one"):
        list_shards(tmp_path / "joined.tar")
    (tmp_path / "longer.tar").write_bytes(whole.read_bytes() + b"\n")  # which every tar reads over
    assert len(list_shards(tmp_path / "longer.tar")) == 3
    pack(tmp_path / "bad.tar", good | {"1.png": good["1.png"][:100]})
    with pytest.raises(UserError, match=r"bad\.tar.1\.png cannot be read"):
        load_folder(tmp_path / "bad.tar", 16)
    assert len(load_folder(tmp_path / "bad.tar", 16, skip_bad=True)[0]) == 2
    assert "1.png" in capsys.readouterr().err


def test_an_index_is_remembered_until_the_shard_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FROM", 1)
    monkeypatch.setenv("STIG_CACHE", str(tmp_path / "cache"))
    for number in range(2):
        pack(tmp_path / f"a-{number}.tar", {f"{number}{index}.png": content([number, index], 16) for index in range(3)})
    first, infos = load_folder(tmp_path / "a-{0..1}.tar", 16)
    read, original = [], shards._read_index
    monkeypatch.setattr(shards, "_read_index", lambda shard: read.append(shard[-5:]) or original(shard))
    again, infos_again = load_folder(tmp_path / "a-{0..1}.tar", 16)
    assert not read and list(infos_again) == list(infos) and torch.equal(again[4], first[4])
    pack(tmp_path / "a-1.tar", {f"1{index}.png": content([9, index], 20) for index in range(4)})
    changed, infos = load_folder(tmp_path / "a-{0..1}.tar", None)
    assert read == ["1.tar"] and len(changed) == 7 and infos[3].width == 20 and changed[6].shape == (3, 20, 20)


SMALL = [*SMALL_NETWORK, "--size", "32", "--device", "cpu", "--epoch", "1", "--base", "linear"]


class Stopped(Exception):
    """Ends a run where a test wants it to end."""


def weights(dst):
    content = load_checkpoint(f"results/{dst}/checkpoint.pt", "stig")
    return content["step"], content["model"] | {f"averaged {name}": value for name, value in content["averaged"].items()}


@pytest.mark.usefixtures("quick_figures")
def test_training_on_shards_stopped_and_resumed_equals_training_on_folders(monkeypatch):
    step, end = train.Trainer.train_step, train.evaluate_refiner

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(train.Monitor, "show", lambda *_: None)
    monkeypatch.setattr(train, "evaluate_refiner", stop)  # the folder's run ends after its last step
    with pytest.raises(Stopped):
        train.main([*SMALL, "--data", "plain", "--dst", "plain", "--holdout", "0.4"])
    packed = [*SMALL, "--data", "packed", "--dst", "packed", "--holdout", "0.4", "--save_frequency", "1", "--num_workers", "2"]
    monkeypatch.setattr(train.Trainer, "train_step", lambda self, *images: stop() if self.step else step(self, *images))
    with pytest.raises(Stopped):
        train.main(packed)
    assert weights("packed")[0] == 1
    monkeypatch.setattr(train.Trainer, "train_step", step)
    monkeypatch.setattr(train, "evaluate_refiner", end)
    train.main([*packed, "--resume"])
    (steps, expected), (steps_packed, found) = weights("plain"), weights("packed")
    assert steps == steps_packed == 2 and expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    held = json.loads(Path("results/packed/images.json").read_text())
    assert held == json.loads(Path("results/plain/images.json").read_text())
    assert [path.name for path in list_images("results/packed/eval/refined")] == held["holdout_fake"]


def refuses(main, arguments, capsys):
    return told(main, arguments, capsys).strip().splitlines()[-1]


def test_shards_that_train_cannot_use(house, capsys):
    base = [*SMALL, "--dst", "never", "--data"]
    pack(house / "datasets/gap/real-000000.tar", {"a.png": content(0)})
    pack(house / "datasets/gap/real-000002.tar", {"b.png": content(1)})
    assert "real-000001.tar does not exist" in refuses(train.main, [*base, "gap"], capsys)
    (house / "datasets/gap/real").mkdir()
    assert "leave one of them" in refuses(train.main, [*base, "gap"], capsys)
    (house / "datasets/gap/real").rmdir()
    pack(house / "datasets/gap/real-000001.tar", {"c.png": content(1)})
    assert "gap/fake does not exist" in refuses(train.main, [*base, "gap"], capsys)


def test_inference_and_eval_on_shards_equal_those_on_the_folder(house):
    filtered = ["--method", "linear", "--size", "32", "--device", "cpu"]
    places = {"folders": "datasets/plain/{}", "shards": "datasets/packed/{}-{{000000..000001}}.tar"}
    for dst, place in places.items():
        real, fake = (place.format(side) for side in ("real", "fake"))
        inference.main([*filtered, "--real", real, "--fake", fake, "--inference_data", fake, "--dst", dst])
        eval_script.main(["--real", real, "--fake", fake, "--eval_mode", "lfd", "--out", f"results/{dst}.json", "--device", "cpu"])
    images = [[np.asarray(Image.open(path)) for path in list_images(f"results/{dst}/refined")] for dst in places]
    assert [path.name for path in list_images("results/shards/refined")] == [f"{index:02d}.png" for index in range(4)]
    assert all(np.array_equal(first, second) for first, second in zip(*images, strict=True))
    first, second = (json.loads(Path(f"results/{dst}.json").read_text())["rows"] for dst in places)
    assert first == second


@pytest.mark.usefixtures("quick_figures")
def test_images_in_shards_that_the_refiner_was_made_with_are_told(house, capsys):
    train.main([*SMALL, "--data", "packed", "--holdout", "0.5", "--dst", "seen_packed"])
    shards = "datasets/packed/fake-{000000..000001}.tar"
    filtered = ["--method", "linear", "--size", "32", "--real", "datasets/packed/real-{000000..000001}.tar", "--fake", shards]
    for number, given in ((2, ["--inference_params", "results/seen_packed"]), (4, filtered)):
        inference.main([*given, "--inference_data", shards, "--dst", f"seen_{number}", "--device", "cpu"])
        assert f"the refiner was made with {number} of the 4 images to refine" in capsys.readouterr().err


def test_shards_are_found_in_the_order_of_their_numbers(tmp_path):
    for number in range(11):
        pack(tmp_path / f"real-{number}.tar", {"a.png": content(number)})
    assert shards_beside(tmp_path, "real") == tmp_path / "real-{0..10}.tar"
    pack(tmp_path / "real-07.tar", {"a.png": content(0)})
    with pytest.raises(UserError, match=r"real-07\.tar has not as many digits"):
        shards_beside(tmp_path, "real")
    assert shards_beside(tmp_path, "fake") is None
    pack(tmp_path / "fake-old.tar", {"a.png": content(0)})  # no number
    assert shards_beside(tmp_path, "fake") is None


def test_a_part_of_a_shard_is_not_remembered_as_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FROM", 1)
    monkeypatch.setenv("STIG_CACHE", str(tmp_path / "cache"))
    pack(tmp_path / "a.tar", {f"{index}.png": content(index) for index in range(6)})
    check_images(list_shards(tmp_path / "a.tar").take([0, 1]))
    assert len(list_shards(tmp_path / "a.tar")) == 6


def test_abandoned_shards_are_swept(tmp_path):
    """Not those that another process is still filling, in the hours until it names them."""
    for name, age in ((32 * "a", 90_000), (32 * "b", 7_200)):
        (tmp_path / f".{name}.tmp.tar").touch()
        os.utime(tmp_path / f".{name}.tmp.tar", (time.time() - age,) * 2)
    draw(tmp_path / "photos", 2, 1)
    write_shards(tmp_path / "photos", tmp_path / "a", 2, 16)
    assert {path.name for path in tmp_path.glob(".*")} == {f".{32 * 'b'}.tmp.tar"}


def test_each_shard_is_the_home_of_its_own_images(tmp_path):
    for number, names in enumerate((["01", "04"], ["00", "02", "05"], ["03"])):
        pack(tmp_path / f"a-{number}.tar", {f"{name}.png": content(int(name)) for name in names})
    paths = list_shards(tmp_path / "a-{0..2}.tar")
    found = {Path(home).name: [paths.names[index] for index in indices] for home, indices in paths.homes()}
    assert found == {"a-0.tar": ["01.png", "04.png"], "a-1.tar": ["00.png", "02.png", "05.png"], "a-2.tar": ["03.png"]}


def test_images_that_a_detector_knows_from_shards_are_told():
    """Whatever they are called where they judge."""
    pattern, plain = "datasets/packed/fake-{000000..000001}.tar", list_images("datasets/plain/fake")
    judged = SimpleNamespace(label="x", images=SimpleNamespace(paths=plain))
    known = {"train": list_shards(pattern).names[:2], "validation": list_shards(pattern).names[2:3], "test": []}
    content = {"training": {"real": "gone-{0..1}.tar", "fake": pattern}, "names": {"real": known, "fake": known}}
    (line,) = copies_of_training(content, [(judged, range(4)), (judged, range(4))])
    assert line.startswith("Warning: x: 3 of 4 images are copies, byte for byte")
