"""What a check of images notices without decoding, and when it believes what it remembers."""

import io
import os

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data import checking, manifest
from data.checking import check_images, column
from data.folder import load_folder
from data.listing import list_images
from data.reading import header_info, inspect
from utils.errors import UserError

LONG_AGO = 10**18  # ns


def draw(path, size=(16, 12), seed=0, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path, **save)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


@pytest.fixture
def looked_at(monkeypatch, tmp_path):
    """Names of the images that were looked at; every folder is remembered, in an empty cache."""
    names, original = [], checking.header_info
    monkeypatch.setattr(checking, "header_info", lambda path, read: names.append(path.name) or original(path, read))
    monkeypatch.setattr(manifest, "FROM", 1)
    monkeypatch.setenv("STIG_CACHE", str(tmp_path / "cache"))
    return names


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        draw(tmp_path / f"images/{index}.{'png' if index else 'jpg'}", seed=index)
    return tmp_path / "images"


def check(folder, looked_at, **options):
    """Check a folder: its infos, and the names looked at."""
    looked_at.clear()
    infos = check_images(list_images(folder), **options)[1]
    return list(infos), list(looked_at)


def test_a_second_check_looks_at_nothing(folder, looked_at):
    first, seen = check(folder, looked_at)
    assert seen == ["0.jpg", *(f"{index}.png" for index in range(1, 6))]
    again, seen = check(folder, looked_at)
    assert again == first and not seen
    assert [info.path for info in again] == sorted(folder.iterdir())
    assert [(info.format, info.width, info.height, info.bits) for info in again[:2]] == [("JPEG", 16, 12, 8), ("PNG", 16, 12, 8)]
    assert again[0].jpeg_quality == 75 and again[1].jpeg_quality is None


def test_files_with_several_frames_are_told_at_every_start(folder, looked_at, capsys):
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "blue")]
    for name in ("a.tif", "b.webp", "c.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    frames[0].save(
        folder / "d.jpg", "MPO", save_all=True, append_images=frames[1:]
    )  # a photograph and its preview, as phones write
    frames[0].save(folder / "e.tif")
    for _ in range(2):
        infos, _ = check(folder, looked_at)
        assert [info.path.name for info in infos if info.several] == ["a.tif", "b.webp", "c.png"]
        told = capsys.readouterr().err
        assert (
            told.count("warning") == 1
            and f"of 3 files with several frames the first frame alone is read (the first: {folder}" in told
        )
    assert np.ptp(load_folder(folder, None, tell=print)[0].array(6), axis=(0, 1)).max() == 0  # red alone


def test_whatever_changed_is_looked_at_again(folder, looked_at):
    check(folder, looked_at)
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])  # same size, and its time is set back
    os.utime(folder / "1.png", ns=(LONG_AGO, LONG_AGO))
    with pytest.raises(UserError, match=r"1\.png"):
        check(folder, looked_at)
    assert looked_at == ["1.png"]
    draw(folder / "1.png", size=(20, 12), seed=9)
    draw(folder / "7.png", seed=7)
    (folder / "3.png").unlink()
    (folder / "4.png").replace(folder / "2.png")
    infos, seen = check(folder, looked_at)
    assert seen == ["1.png", "2.png", "7.png"] and len(infos) == 5 and infos[1].width == 20
    assert check(folder, looked_at)[1] == []


def test_a_file_that_just_changed_is_not_believed(folder, looked_at):
    os.utime(folder / "2.png")
    assert check(folder, looked_at)[1] != []
    assert check(folder, looked_at)[1] == ["2.png"]


def test_a_file_that_is_gone_is_not_taken_for_one_that_just_changed(folder, looked_at):
    """Neither has stamps."""
    os.utime(folder / "2.png")
    check(folder, looked_at)
    paths = list_images(folder)
    (folder / "2.png").unlink()
    rows = manifest.known_rows(folder, paths.names, paths.stamps())
    assert rows["width"].tolist() == [16, 16, 0, 16, 16, 16]


def test_bad_files_are_named_at_every_start(folder, looked_at, capsys):
    path = folder / "3.png"
    path.write_bytes(path.read_bytes()[:-200])
    for _ in range(2):
        infos, seen = check(folder, looked_at, skip_bad=True)
        assert len(infos) == 5 and "3.png" in seen
        assert "3.png" in capsys.readouterr().err
    assert seen == ["3.png"]


@pytest.mark.parametrize("damage", ["cut", "text", "objects", "older"])
def test_a_damaged_cache_is_made_anew(folder, looked_at, tmp_path, damage):
    first, _ = check(folder, looked_at)
    (file,) = (tmp_path / "cache").iterdir()
    arrays = dict(np.load(file))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "text":
        file.write_text("no manifest")
    elif damage == "objects":
        np.savez(file, **arrays | {"rows": np.array([print] * 6, dtype=object)})
    else:
        np.savez(file, **arrays | {"version": 0})
    again, seen = check(folder, looked_at)
    assert again == first and len(seen) == 6
    assert check(folder, looked_at)[1] == []


def test_a_cache_that_cannot_be_written_costs_time_only(folder, looked_at, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STIG_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        infos, seen = check(folder, looked_at)
        assert len(infos) == len(seen) == 6
        assert "cannot be remembered" in capsys.readouterr().err


def test_small_folders_leave_no_trace(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STIG_CACHE", str(tmp_path / "cache"))
    load_folder(folder, None)
    assert not (tmp_path / "cache").exists()


def test_worker_processes_find_the_same(folder, looked_at, monkeypatch):
    (folder / "2.png").write_bytes(b"")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:50])
    monkeypatch.setattr(manifest, "FROM", 10)
    alone, seen = check(folder, looked_at, skip_bad=True)
    monkeypatch.setattr(checking, "PARALLEL_FROM", 1)
    monkeypatch.setattr(checking, "PART", 2)
    together, here = check(folder, looked_at, skip_bad=True, num_workers=2)
    assert together == alone and len(seen) == 6 and not here
    with pytest.raises(UserError, match=r"2\.png .*\(1 more such files\)"):
        check(folder, looked_at, num_workers=2)


def encoded(image, kind, **save):
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def ordinary_and_unusual():
    """{name: bytes} of images, and whether decoding is needed to know them."""
    image = Image.linear_gradient("L").resize((20, 10)).convert("RGB")
    turned, note = Image.Exif(), PngImagePlugin.PngInfo()
    turned[0x0112] = 6
    note.add_text("parameters", "a photograph of a cat, 8k")
    sixteen = Image.fromarray(np.arange(200, dtype=np.uint16).reshape(10, 20) * 300)
    return {
        "plain.png": (encoded(image, "PNG"), False),
        "grey.png": (encoded(image.convert("L"), "PNG"), False),
        "palette.png": (encoded(image.quantize(8), "PNG", transparency=0), False),
        "noted.png": (encoded(image, "PNG", pnginfo=note), False),
        "turned.png": (encoded(image, "PNG", exif=turned), True),
        "sixteen.png": (encoded(sixteen, "PNG"), True),
        "plain.jpg": (encoded(image, "JPEG", quality=88), False),
        "grey.jpg": (encoded(image.convert("L"), "JPEG"), False),
        "turned.jpg": (encoded(image, "JPEG", exif=turned), False),
        "cmyk.jpg": (encoded(image.convert("CMYK"), "JPEG"), False),
        "two.jpg": (encoded(image, "MPO", save_all=True, append_images=[image]), False),
        "trailing.jpg": (encoded(image, "JPEG") + b"\0\0", True),
        "x.webp": (encoded(image, "WEBP"), True),
        "x.bmp": (encoded(image, "BMP"), True),
        "x.tif": (encoded(image, "TIFF"), True),
    }


@pytest.mark.parametrize("name", ordinary_and_unusual())
def test_headers_say_what_decoding_says(name, tmp_path):
    content, needs_decoding = ordinary_and_unusual()[name]
    (tmp_path / name).write_bytes(content)
    info = header_info(tmp_path / name, lambda: content)
    assert (info is None) == needs_decoding
    assert info is None or info == inspect(tmp_path / name)[1]
    for length in range(0, len(content) - 4, 7):
        assert header_info(tmp_path / name, lambda length=length: content[:length]) is None


def test_a_changed_byte_in_a_png_needs_no_decoding_to_be_found():
    content, _ = ordinary_and_unusual()["plain.png"]
    for place in range(8, len(content) - 12, 5):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        assert header_info("x.png", lambda changed=changed: changed) is None


def test_columns_of_tables_and_lists_agree(folder):
    infos = check_images(list_images(folder))[1]
    for name in ("format", "width", "height", "bits", "jpeg_quality"):
        assert column(infos, name).tolist() == column(list(infos), name).tolist()
    assert list(infos.take([4, 0])) == [infos[4], infos[0]]


def test_headers_know_how_any_orientation_turns_an_image(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(Image.linear_gradient("L").resize((20, 10)), "JPEG", exif=exif)
        (tmp_path / "x.jpg").write_bytes(content)
        assert header_info(tmp_path / "x.jpg", lambda content=content: content) == inspect(tmp_path / "x.jpg")[1]


def test_what_is_remembered_goes_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("STIG_CACHE", str(tmp_path))
    stamps, rows = np.repeat([[1], [2]], 3, axis=1), np.zeros(2, manifest.ROW)
    rows["width"] = 10, 20
    assert manifest.write_manifest(tmp_path, ["a.png", "b.png"], stamps, rows, np.zeros((2, 2), np.int64)) is None
    assert manifest.known_rows(tmp_path, ["b.png"], stamps[1:])["width"].tolist() == [20]
    found = manifest.known_rows(tmp_path, ["0.png", "a.png", "b.png"], np.concatenate([stamps[:1], stamps]))
    assert found["width"].tolist() == [0, 10, 20]
