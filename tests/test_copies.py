"""Files of equal content among the images of folders and shards."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import copies
from data.copies import BETWEEN, WITHIN, file_sizes, file_sum, first_equal, images_seen, told_copies
from data.listing import list_images
from data.shards import list_shards


def put(folder, count, first=0):
    """Pictures of one file size each."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.bmp")
    return folder


def pack(folder, shard):
    with tarfile.open(shard, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return shard


def test_sizes_are_those_of_files_within_shards_too(tmp_path):
    folder = put(tmp_path / "a", 3)
    (folder / "0.bmp").write_bytes((folder / "0.bmp").read_bytes() + b"more")
    expected = [path.stat().st_size for path in sorted(folder.iterdir())]
    for paths in (list_images(folder), list_shards(pack(folder, tmp_path / "a.tar"))):
        assert file_sizes(paths).tolist() == expected
        for count in (5, 10**6):  # of a shard's image that is shorter, nothing of the one before it
            assert [paths.tail(index, count) for index in range(3)] == [
                path.read_bytes()[-count:] for path in sorted(folder.iterdir())
            ]


def test_images_are_known_again_as_files(tmp_path):
    """By their sizes where these differ; where they do not, by what is in them."""
    for number in range(4):
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(tmp_path / f"{number}.bmp")
    known, flat = list_images(tmp_path), file_sum(list_images(tmp_path))
    assert flat == file_sum(known.take([3, 1]), known.take([0, 2]))  # in any order, and in parts
    Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(tmp_path / "2.bmp")
    assert file_sum(list_images(tmp_path)) != flat
    for number in range(4):
        Image.fromarray(np.zeros((16, 16 + number, 3), np.uint8)).save(tmp_path / f"{number}.bmp")
    known = list_images(tmp_path)
    assert file_sum(known) == file_sizes(known).sum()


@pytest.mark.parametrize("shards", [False, True])
def test_copies_are_found_within_a_side_and_over_sides(tmp_path, shards):
    a, b = put(tmp_path / "a", 4), put(tmp_path / "b", 3, first=10)
    shutil.copy(a / "1.bmp", a / "7.bmp")
    shutil.copy(a / "2.bmp", b / "2.bmp")
    (b / "11.bmp").write_bytes((a / "0.bmp").read_bytes()[:60] + (b / "11.bmp").read_bytes()[60:])  # of one size, not equal
    ending = bytearray((a / "3.bmp").read_bytes())
    ending[60] ^= 1
    (b / "12.bmp").write_bytes(ending)  # of one size and one end
    sides = [list_shards(pack(side, tmp_path / f"{side.name}.tar")) if shards else list_images(side) for side in (a, b)]
    first = first_equal(*sides)
    assert [part.tolist() for part in first] == [[0, 1, 2, 3, 1], [5, 6, 7, 2]]
    told = told_copies(*sides)
    assert len(told) == 2 and "1 of 5 images" in told[0] and "copies of others there, byte for byte" in told[0]
    assert Path(told[0].partition("the first: ")[2].split()[0]).name == "7.bmp" and "1 of 4 images" in told[1]
    assert f"copies of images of {sides[0].root}" in told[1]
    assert told[0].endswith(WITHIN) and told[1].endswith(BETWEEN)


def test_copies_within_a_side_are_none_of_another_side(tmp_path):
    a, b = put(tmp_path / "a", 1), put(tmp_path / "b", 2, first=10)
    shutil.copy(b / "10.bmp", b / "12.bmp")
    (told,) = told_copies(list_images(a), list_images(b))
    assert told.startswith(f"1 of 3 images of {b} are copies of others there")


def test_images_that_cannot_be_read_are_no_copies(tmp_path):
    folder = put(tmp_path / "a", 3)
    paths = list_shards(pack(folder, tmp_path / "a.tar"))
    (tmp_path / "a.tar").unlink()
    assert first_equal(paths)[0].tolist() == [0, 1, 2]
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert first_equal(list_images(folder))[0].tolist() == [0, 1, 2]


def test_nothing_is_told_without_copies_nor_looked_for_among_very_many(tmp_path, monkeypatch):
    folder = put(tmp_path / "a", 4)
    assert told_copies(list_images(folder)) == []
    shutil.copy(folder / "1.bmp", folder / "7.bmp")
    assert len(told_copies(list_images(folder))) == 1
    monkeypatch.setattr(copies, "MOST", 5)
    assert len(told_copies(list_images(folder))) == 1
    monkeypatch.setattr(copies, "MOST", 4)
    assert told_copies(list_images(folder)) == []
    (folder / "7.bmp").unlink()
    (folder / "7.bmp").symlink_to("nowhere.bmp")
    assert first_equal(list_images(folder))[0].tolist() == [0, 1, 2, 3, 4]


def test_images_that_a_refiner_has_seen_are_counted(tmp_path, monkeypatch):
    a, b = put(tmp_path / "a", 4), put(tmp_path / "b", 3, first=10)
    shutil.copy(a / "1.bmp", b / "99.bmp")
    used, paths = list_images(a), list_images(b)
    assert (images_seen(used, paths), images_seen(paths, used), images_seen(used, used)) == (1, 1, 4)
    assert images_seen(used, list_images(put(tmp_path / "c", 2, first=20))) == 0
    assert images_seen(None, paths) is None
    monkeypatch.setattr(copies, "MOST", 7)
    assert images_seen(used, paths) is None
