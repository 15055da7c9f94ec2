"""Epochs of photographs from folders and tar shards."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from small import tar_of

from data.streams import ImageStream, find_photographs, is_shards, open_stream
from gan_commands import shard
from gan_commands.shard import write_shards
from utils.errors import UserError


def write_images(folder, count, size=8, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{index:03d}.png")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "datasets/set/real/a", 6, seed=1)
    write_images(tmp_path / "datasets/set/real/b", 5, seed=2)
    return tmp_path


def rows(batches):
    """Set of the images in batches, as bytes."""
    return [image.numpy().tobytes() for batch in batches for image in batch]


def test_names_lead_to_folders(workplace):
    assert find_photographs("set").as_posix() == "datasets/set/real"
    (workplace / "datasets/flat").mkdir()
    assert find_photographs("flat").as_posix() == "datasets/flat"
    assert find_photographs(str(workplace)) == workplace
    assert find_photographs("datasets/set").as_posix() == "datasets/set/real"  # as a shell completes it
    (workplace / "else/fake").mkdir(parents=True)
    (workplace / "else/real").mkdir()
    assert find_photographs("else").as_posix() == "else/real"  # and no fakes with them
    with pytest.raises(UserError, match="neither datasets/nothing"):
        find_photographs("nothing")
    assert is_shards("a-{000000..000007}.tar") and not is_shards("set")


def test_folder_epochs(workplace):
    stream = open_stream("set", 8, 4, seed=0)
    assert stream.steps_per_epoch == 2
    first, again, second = (list(stream.batches(epoch)) for epoch in (0, 0, 1))
    assert [tuple(batch.shape) for batch in first] == [(4, 3, 8, 8)] * 2
    assert rows(first) == rows(again)
    assert rows(first) != rows(second)
    assert len(set(rows(first))) == 8  # no image twice
    assert rows(stream.batches(0, start=1)) == rows(first[1:])
    once = list(stream.once())
    assert rows(once[:2]) == rows(first) and [len(image) for image in once] == [4, 4, len(stream.images) - 8]
    assert len(set(rows(once))) == len(stream.images)
    threaded = ImageStream(stream.images, 4, 0, num_workers=2)
    assert rows(threaded.batches(0)) == rows(first)
    assert rows(open_stream("set", 8, 4, seed=1).batches(0)) != rows(first)
    with pytest.raises(UserError, match="fewer than --batch_size 12"):
        open_stream("set", 8, 12, seed=0)


def test_shards_hold_the_images_and_are_reproducible(workplace):
    pattern = write_shards("set", "shards/set", 4, 8)
    assert pattern == "shards/set-{000000..000002}.tar"
    bytes_before = [path.read_bytes() for path in sorted((workplace / "shards").iterdir())]
    with pytest.raises(UserError, match="exists already"):
        write_shards("set", "shards/set", 4, 8)
    write_shards("set", "shards/set", 4, 8, overwrite=True)
    assert [path.read_bytes() for path in sorted((workplace / "shards").iterdir())] == bytes_before

    stream = open_stream(pattern, 8, 2, seed=0)
    from_folder = set(rows([image[None] for image in open_stream("set", 8, 2, seed=0).images]))
    first = list(stream.batches(0))
    assert len(first) == 5
    assert len(set(rows(first))) == 10 and set(rows(first)) <= from_folder
    assert rows(stream.batches(0)) == rows(first)
    assert rows(stream.batches(1)) != rows(first)
    assert rows(stream.batches(0, start=3)) == rows(first[3:])
    assert list(stream.batches(0, start=5)) == []


def test_shards_are_all_written_or_none(workplace, monkeypatch):
    folder, packed = workplace / "shards", []
    pattern = write_shards("set", "shards/set", 3, 8)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def pack(array, png=shard._png):
        packed.append(array)
        if len(packed) == 8:
            raise KeyboardInterrupt
        return png(array)

    monkeypatch.setattr(shard, "_png", pack)
    for prefix, overwrite in (("shards/set", True), ("shards/other", False)):
        packed.clear()
        with pytest.raises(KeyboardInterrupt):
            write_shards("set", prefix, 4, 8, overwrite=overwrite)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert write_shards("set", "shards/set", 6, 8, overwrite=True) == "shards/set-{000000..000001}.tar" != pattern
    assert len(list(folder.iterdir())) == 2


def test_shards_that_another_process_wrote_meanwhile_stay(workplace, monkeypatch):
    monkeypatch.setattr(shard, "_png", lambda array: (workplace / "shards/set-000000.tar").touch() or b"")
    with pytest.raises(UserError, match="exists already"):
        write_shards("set", "shards/set", 4, 8)
    assert [path.stat().st_size for path in (workplace / "shards").iterdir()] == [0]


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_processes_deal_out_the_batches_of_one(workplace, form):
    """The stream itself goes to the other processes: what the first has checked, they need not."""
    data = "set" if form == "folder" else write_shards("set", "shards/set", 4, 8)
    stream = pickle.loads(pickle.dumps(open_stream(data, 8, 5, seed=0)))
    whole = list(stream.batches(1))
    parts = [list(stream.batches(1, part=(rank, 2))) for rank in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 2
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(first, batch[::2]) and torch.equal(second, batch[1::2])


def encoded(width, height, suffix):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).save(buffer, suffix)
    return buffer.getvalue()


def test_shards_of_others(workplace):
    members = {"0.jpg": encoded(12, 10, "JPEG"), "0.cls": b"3", "1.png": encoded(8, 8, "PNG"), "2.png": b"broken"}
    tar_of(workplace / "theirs/x-0.tar", members)
    stream = open_stream("theirs/x-{0..0}.tar", 8, 2, seed=0, fit="crop", skip_bad=True)
    (batch,) = stream.batches(0)
    assert batch.shape == (2, 3, 8, 8)
    with pytest.raises(UserError, match=r"2\.png cannot be read.*--skip_bad"):
        list(open_stream("theirs/x-{0..0}.tar", 8, 2, seed=0).batches(0))
    with pytest.raises(UserError, match="not 8 x 8"):
        list(open_stream("theirs/x-{0..0}.tar", 8, 2, seed=0, fit="none", skip_bad=True).batches(0))
    with pytest.raises(UserError, match="fewer than --batch_size 5"):
        list(open_stream("theirs/x-{0..0}.tar", 8, 5, seed=0, skip_bad=True).batches(0))
    with pytest.raises(UserError, match=r"x-1\.tar does not exist"):
        open_stream("theirs/x-{0..1}.tar", 8, 2, seed=0)


def test_shards_of_others_are_read_as_folders_are(workplace):
    """16 bit scaled and not clipped, alpha over white, EXIF's orientation: one reader for both."""
    sideways, noise = Image.Exif(), np.random.default_rng(0).integers(0, 2**16, (8, 8), dtype=np.uint16)
    sideways[0x0112] = 6
    folder = workplace / "odd"
    folder.mkdir()
    Image.fromarray(noise).save(folder / "0.png")
    Image.fromarray(np.full((8, 8, 4), (200, 0, 0, 64), np.uint8)).save(folder / "1.png")
    Image.linear_gradient("L").resize((8, 8)).save(folder / "2.png", exif=sideways)
    tar_of(workplace / "theirs/odd-0.tar", {path.name: path.read_bytes() for path in folder.iterdir()})
    batches = [next(open_stream(data, 8, 3, seed=0).batches(0)) for data in ("odd", "theirs/odd-0.tar")]
    assert torch.equal(*batches)


def test_resized_shards_match_the_folder(workplace):
    write_images(workplace / "datasets/large", 3, size=20, seed=3)
    pattern = write_shards("large", "shards/large", 10, 8, "crop")
    expected = torch.stack(list(open_stream("large", 8, 2, 0, "crop").images))
    (batch,) = open_stream(pattern, 8, 3, 0).batches(0)
    assert sorted(rows([batch])) == sorted(rows([expected]))


def test_shards_of_16_bit_images_are_rounded_to_8(workplace):
    values = np.array([[0, 128, 129, 257, 385, 386, 65406, 65535]], np.uint16).repeat(8, 0)
    (workplace / "deep").mkdir()
    Image.fromarray(values).save(workplace / "deep/0.png")
    (batch,) = open_stream(write_shards("deep", "shards/deep", 1, 8), 8, 1, 0).batches(0)
    assert (batch[0, 0, 0] * 255).round().tolist() == [0, 0, 1, 1, 1, 2, 254, 255]
