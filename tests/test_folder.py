import dataclasses
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import draw

import data.folder
from data.checking import FORKED, check_images
from data.differences import compare_files
from data.folder import ImageFolder, load_folder, require_one_size
from data.listing import list_images
from data.reading import ImageInfo
from data.training import training_sets
from options import parse_train
from utils.errors import UserError
from utils.locks import held_by_another

WORKERS = """
import os, sys, time
import data.checking as checking
from data.listing import list_images
from utils.locks import hold

def busy(*_):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece, whatever the other writes
    time.sleep(60)

checking.PARALLEL_FROM = checking.PART = 1
checking.header_info = busy
hold(sys.argv[1])
checking.check_images(list_images(sys.argv[1]), num_workers=2)
"""


def put(folder, *names, size=(16, 16), **save):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / name, **save)
    return folder


def infos(count, **changes):
    return [dataclasses.replace(ImageInfo("x", "PNG", 256, 256, None), **changes) for _ in range(count)]


def test_listing_is_sorted_and_takes_any_case(tmp_path):
    names = ["b.PNG", "a.jpeg", "C.JPG", "10.webp", "9.bmp", "z.TIFF", "t.tif"]
    put(tmp_path, *names)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._a.png").write_bytes(b"left by a file manager")
    put(tmp_path / "sub.png", "inner.png")
    assert [path.name for path in list_images(tmp_path)] == sorted(names)
    found = list_images(tmp_path, recursive=True)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == sorted([*names, "sub.png/inner.png"])


def test_a_missing_or_empty_folder_is_explained(tmp_path):
    with pytest.raises(UserError, match="absent does not exist; check the name"):
        list_images(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no PNG.*put some there"):
        list_images(tmp_path)
    put(tmp_path / "sub", "x.png")
    with pytest.raises(UserError, match="subfolders"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        list_images(tmp_path / "sub" / "x.png")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_bad_files_are_named_or_left_out(tmp_path, capsys, num_workers):
    put(tmp_path, "a.png", "b.png", "c.jpg", "d.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:300])
    (tmp_path / "d.png").write_bytes(b"")
    paths = list_images(tmp_path)
    with pytest.raises(UserError, match=r"b\.png cannot be read.*--skip_bad \(1 more"):
        check_images(paths, num_workers=num_workers)
    good, found = check_images(paths, skip_bad=True, num_workers=num_workers)
    assert [path.name for path in good] == ["a.png", "c.jpg"] and [info.path for info in found] == good
    told = capsys.readouterr().err
    assert "b.png" in told and "d.png" in told and told.count("warning: left out") == 2
    with pytest.raises(UserError, match="none of the 2 images"):
        check_images([tmp_path / "b.png", tmp_path / "d.png"], skip_bad=True, num_workers=num_workers)


def test_bad_files_are_named_whichever_part_they_are_checked_in(tmp_path, monkeypatch):
    monkeypatch.setattr("data.checking.PART", 2)
    put(tmp_path, "a.png", "b.png", "c.png", "d.png", "e.png")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    told = []
    good, _ = check_images(list_images(tmp_path), skip_bad=True, tell=told.append)
    assert [path.name for path in good] == ["b.png", "d.png", "e.png"]
    assert len(told) == 2 and "a.png" in told[0] and "c.png" in told[1]


def test_a_broken_link_is_named(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"b\.png cannot be read: it is a link to nothing; replace or remove it"):
        check_images(list_images(tmp_path))


def test_equal_classes_raise_no_warning():
    assert compare_files(infos(80), infos(60)) == []
    assert compare_files(infos(80, format="JPEG", jpeg_quality=90), infos(9, format="JPEG", jpeg_quality=91)) == []


def test_class_differences_that_leak_the_label_are_told():
    (format_told,) = compare_files(infos(3, format="JPEG", jpeg_quality=90), infos(3))
    assert "formats differ" in format_told and "real: JPEG 3; fake: PNG 3" in format_told
    jpegs = [infos(5, format="JPEG", jpeg_quality=quality) for quality in (75, 95)]
    (quality_told,) = compare_files(*jpegs)
    assert "JPEG quality" in quality_told and "real 75, fake 95" in quality_told
    (size_told,) = compare_files(infos(4), infos(4, width=512, height=512))
    assert "256 x 256: 4" in size_told and "512 x 512: 4" in size_told
    assert len(compare_files(infos(4, height=384), infos(4, width=384))) == 1
    (depth_told,) = compare_files(infos(4, bits=16), infos(5))
    assert "bits per value differ" in depth_told and "real: 16 bit: 4; fake: 8 bit: 5" in depth_told
    assert compare_files(infos(4, bits=16), infos(4, bits=16)) == []


def test_varied_sizes_of_one_kind_raise_no_warning():
    rng = np.random.default_rng(0)

    def draw(count):
        return [dataclasses.replace(infos(1)[0], width=int(w), height=int(h)) for w, h in rng.lognormal(6, 0.4, (count, 2))]

    assert [compare_files(draw(50), draw(40)) for _ in range(20)].count([]) >= 18


def test_loading_warns_once_about_resizing(tmp_path, capsys):
    put(tmp_path, "a.png", "b.png", size=(32, 20))
    put(tmp_path, "c.png")
    dataset, found = load_folder(tmp_path, 16, "resize")
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1 and "2 of 3" in told and "erases the artefacts" in told and "--fit crop" in told
    assert len(dataset) == len(found) == 3 and dataset[0].shape == (3, 16, 16)
    load_folder(tmp_path, 16, "crop")
    load_folder(tmp_path, None)
    assert capsys.readouterr().err == ""


def test_loading_refuses_sizes_before_any_work(tmp_path):
    put(tmp_path, "a.png")
    put(tmp_path, "b.png", "c.png", size=(32, 24))
    with pytest.raises(UserError, match=r"b\.png is 32 x 24 and not 16 x 16"):
        load_folder(tmp_path, 16, "none")
    with pytest.raises(UserError, match=r"a\.png is 16 x 16, too small"):
        load_folder(tmp_path, 32, "crop")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"b\.png is 32 x 24, too small"):
        load_folder(tmp_path, 32, "crop")


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_cached_equals_read_anew(tmp_path, monkeypatch, fit):
    put(tmp_path, "a.png", "b.png", size=(20, 24))
    plain, cached = (load_folder(tmp_path, 16, fit, cache_gb=gb)[0] for gb in (0, 0.1))
    assert cached.cached_gb and not plain.cached_gb
    first = [cached[i].clone() for i in range(2)]
    cached[0].zero_()  # a caller may change what it was given
    reads = []
    monkeypatch.setattr(data.folder, "read_array", lambda *arguments: reads.append(arguments))
    again = [cached[i] for i in range(2)]
    monkeypatch.undo()
    assert not reads
    for i in range(2):
        assert torch.equal(first[i], again[i]) and torch.equal(first[i], plain[i])


def test_the_cache_keeps_to_its_budget(tmp_path):
    put(tmp_path, "a.png", "b.png", size=(16, 16))
    need = 2 * 3 * 16 * 16 / 2**30
    assert load_folder(tmp_path, 16, cache_gb=need)[0].cached_gb
    assert not load_folder(tmp_path, 16, cache_gb=need * 0.99)[0].cached_gb
    assert not ImageFolder(list_images(tmp_path)).cached_gb
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(tmp_path / "b.png")
    assert not load_folder(tmp_path, 16, cache_gb=need)[0].cached_gb  # two bytes per value now


def test_other_processes_get_no_copy_of_the_cache(tmp_path):
    put(tmp_path, "a.png", "b.png", "c.png")
    dataset, _ = load_folder(tmp_path, 16, cache_gb=0.1)
    expected = torch.stack(list(dataset))
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(dataset._arrays) == 3 and not copy._arrays and torch.equal(copy[1], expected[1])


def test_caches_of_a_training_stay_within_the_budget_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("one", 4), ("two", 8)):
        for side in ("real", "fake"):
            put(tmp_path / "datasets" / name / side, *(f"{number}.png" for number in range(count)))
    image = 3 * 16 * 16 / 2**30
    for extra, images, budget in (
        ([], 8, 8 * image),  # those that are trained on are those that are judged
        ([], 4, 7 * image),
        (["--holdout", "0.5"], 8, 8 * image),
        (["--test_data", "two"], 16, 23 * image),  # one side of the other set, which has sixteen, too
        (["--test_data", "two"], 24, 24 * image),
    ):
        arguments = ["--data", "one", "--dst", "x", "--size", "16", "--sigma", "2", "--cache_gb", str(budget), *extra]
        sets, _, _ = training_sets(parse_train(arguments))
        kept = {part for part in sets.values() if part.cached_gb}
        assert sum(map(len, kept)) == images and sum(part.cached_gb for part in kept) <= budget


def test_test_data_that_is_training_data_by_another_path_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side in ("real", "fake"):
        put(tmp_path / "datasets/one" / side, *(f"{side}{number}.png" for number in range(4)))
        (tmp_path / "datasets/linked" / side).mkdir(parents=True)
        for path in (tmp_path / "datasets/one" / side).iterdir():
            (tmp_path / "datasets/linked" / side / path.name).symlink_to(path)
    told = []
    training_sets(parse_train(["--data", "one", "--test_data", "linked", "--dst", "x", "--size", "16"]), tell=told.append)
    for side in ("real", "fake"):
        assert any(f"4 of 4 images of datasets/linked/{side} are copies of images of datasets/one/{side}" in text for text in told)


def test_all_images_have_one_size(tmp_path):
    put(tmp_path / "a", "0.png", "1.png", size=(4, 6))
    put(tmp_path / "b", "0.png", size=(4, 6))
    put(tmp_path / "b", "1.png", "2.png", size=(6, 4))
    put(tmp_path / "c", "0.png", "1.png", size=(4, 4))
    a, b, c = (load_folder(tmp_path / name, None)[1] for name in "abc")
    require_one_size(a, b.take([0]), list(a))
    require_one_size(c, square=True)
    for parts, square, told in (
        ((a, b, c), False, "b/1.png is 6 x 4, but a/0.png is 4 x 6; all must have one size: mend it"),
        ((list(a), list(c)), False, "c/0.png is 4 x 4, but a/0.png is 4 x 6; all must have one size: mend it"),
        ((a,), True, "a/0.png is 4 x 6; all must be squares of one size: mend it"),  # not square itself
        ((c, b), True, "b/0.png is 4 x 6, but c/0.png is 4 x 4; all must be squares of one size: mend it"),
    ):
        with pytest.raises(UserError) as error:
            require_one_size(*parts, square=square, advice="mend it")
        assert str(error.value).replace(f"{tmp_path}/", "") == told


def test_what_is_left_out_is_told(tmp_path):
    draw(tmp_path / "set", 2, 1)
    draw(tmp_path / "set/deeper", 3, 2)
    (tmp_path / "set/moving.GIF").write_bytes(b"GIF89a")
    draw(tmp_path / "set/.hidden", 1, 3)
    told = []
    assert len(load_folder(tmp_path / "set", None, tell=told.append)[0]) == 2
    (sentence,) = told
    assert "files of other formats (1, the first: " in sentence and "images in subfolders (3, the first: " in sentence
    assert len(load_folder(tmp_path / "set", None, recursive=True, tell=told.append)[0]) == 5
    assert len(told) == 2 and "subfolders" not in told[1]


def test_a_small_shift_of_many_qualities_is_told_and_few_other_formats_are_not():
    shifted = [
        [dataclasses.replace(infos(1)[0], format="JPEG", jpeg_quality=first + number % 16) for number in range(200)]
        for first in (80, 84)
    ]
    assert len(compare_files(*shifted)) == 1
    jpegs = infos(25, format="JPEG", jpeg_quality=90)
    assert compare_files(infos(85) + jpegs[:15], infos(100)) == []
    assert len(compare_files(infos(75) + jpegs, infos(100))) == 1


def lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not FORKED, reason="workers are not forked here")
def test_workers_end_with_the_process_that_started_them_and_hold_nothing(tmp_path):
    folder = tmp_path / "images"
    draw(folder, 2, 1)
    command = [sys.executable, "-c", WORKERS, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as started:
        workers = [int(started.stdout.readline()) for _ in range(2)]
        was_held, lived = held_by_another(folder), [*map(lives, workers)]
        started.kill()
        started.wait()
        assert was_held and all(lived)
        assert not held_by_another(folder)
        until = time.monotonic() + 60
        while any(map(lives, workers)) and time.monotonic() < until:
            time.sleep(0.2)
        assert not any(map(lives, workers))


def test_a_run_or_both_classes_are_no_folder_of_images(tmp_path):
    """Pictures of a report would be measured as images; "move those of its subfolders up" would mix the classes."""
    draw(tmp_path / "run", 2, seed=0)
    (tmp_path / "run/options.json").touch()
    draw(tmp_path / "set/real", 2, seed=0)
    draw(tmp_path / "set/fake", 2, seed=0)
    draw(tmp_path / "other", 2, seed=0)
    draw(tmp_path / "other/deeper/real", 2, seed=0)
    draw(tmp_path / "other/deeper/fake", 2, seed=0)
    for name, words in (("run", "is a run"), ("set", "holds real/ and fake/")):
        with pytest.raises(UserError, match=words):
            load_folder(tmp_path / name, None)
    assert len(load_folder(tmp_path / "other", None)[0]) == 2  # what is below it is not read
    with pytest.raises(UserError, match="holds real/ and fake/"):
        load_folder(tmp_path / "other", None, recursive=True)
