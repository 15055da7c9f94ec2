import contextlib
import errno
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2

from data.reading import decode, fit_error, inspect, jpeg_quality, read_array, read_image, to_tensor
from utils.errors import UserError

ORIENTATION = 0x0112


def noise(seed=0, shape=(12, 10, 3), kind=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


def smooth(height=40, width=48):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 4, columns * 4, 255 - rows * 2 - columns * 2], axis=2).clip(0, 255).astype(np.uint8)


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(array, key=b""):
    """Bytes of a 16-bit PNG whose rows use all five filter types; (H, W, 1..4) uint16, and its transparency chunk's data."""
    height, width, channels = array.shape
    step, previous, rows = 2 * channels, np.zeros(2 * channels * width, np.uint8), b""
    for number, row in enumerate(array.astype(">u2")):
        line = np.frombuffer(row.tobytes(), np.uint8)
        left = np.concatenate([np.zeros(step, np.uint8), line[:-step]]).astype(int)
        corner = np.concatenate([np.zeros(step, np.uint8), previous[:-step]]).astype(int)
        above, estimate = previous.astype(int), left + previous - corner
        distances = np.abs(np.stack([estimate - left, estimate - above, estimate - corner]))
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        guesses = [0 * left, left, above, (left + above) // 2, paeth]
        rows += bytes([number % 5]) + (line - guesses[number % 5]).astype(np.uint8).tobytes()
        previous = line

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    transparency = chunk(b"tRNS", key) if key else b""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparency
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey_png(array, bits, key):
    """Bytes of a PNG with 1, 2, 4 or 8 bits of grey; (H, W) integers, a whole number of bytes wide; one value is transparent."""
    height, width = array.shape
    places = np.arange(8)[-bits:]
    packed = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, places]) for row in array.astype(np.uint8)]
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)), (b"tRNS", struct.pack(">H", key))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff16(array, order="<", deflate=False):
    """Bytes of a 16-bit RGB TIFF in one strip; (H, W, 3) uint16."""
    height, width, _ = array.shape
    data = array.astype(order + "u2").tobytes()
    data = zlib.compress(data) if deflate else data
    entries = [(256, 1, width), (257, 1, height), (258, 3, 134), (259, 1, 8 if deflate else 1), (262, 1, 2), (273, 1, 140)]
    entries += [(277, 1, 3), (278, 1, height), (279, 1, len(data)), (284, 1, 1)]  # the tags, 8 + 2 + 10 * 12 + 4 = 134 bytes
    tags = b"".join(struct.pack(order + "HHII", tag, 3 if tag == 258 else 4, number, value) for tag, number, value in entries)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    return head + tags + struct.pack(order + "IHHH", 0, 16, 16, 16) + data


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "TIFF", "webp"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(noise()).save(path, **({"lossless": True} if suffix == "webp" else {}))
    array, info = inspect(path)
    np.testing.assert_array_equal(array, noise())
    assert (info.width, info.height, info.bits, info.jpeg_quality) == (10, 12, 8, None)
    assert info.format == {"png": "PNG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "webp": "WEBP"}[suffix.lower()]


def test_the_content_counts_not_the_suffix(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "x.png", "JPEG", quality=83)
    assert inspect(tmp_path / "x.png")[1].format == "JPEG"


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_become_rgb(tmp_path, mode):
    image = Image.fromarray(smooth()).convert(mode)
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png"), np.asarray(image.convert("RGB")))


@given(alpha=st.integers(0, 255), colour=st.integers(0, 255))
@settings(max_examples=30)
def test_transparency_is_put_on_white(tmp_path_factory, alpha, colour):
    path = tmp_path_factory.mktemp("rgba") / "x.png"
    Image.new("RGBA", (3, 2), (colour, 0, 255, alpha)).save(path)
    expected = [round((c * alpha + 255 * (255 - alpha)) / 255) for c in (colour, 0, 255)]
    assert decode(path)[1, 2].tolist() == expected
    Image.new("LA", (3, 2), (colour, alpha)).save(path)
    assert decode(path)[1, 2].tolist() == [expected[0]] * 3


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "x.png", transparency=0)
    array = decode(tmp_path / "x.png")
    assert array[0, 0].tolist() == [255, 255, 255] and array[1, 1].tolist() == [40, 50, 60]


def test_a_transparent_colour_is_white(tmp_path):
    array = np.full((4, 4, 3), 90, np.uint8)
    array[0, 0] = 7, 8, 9
    Image.fromarray(array).save(tmp_path / "x.png", transparency=(7, 8, 9))
    assert decode(tmp_path / "x.png")[0, 0].tolist() == [255] * 3 and decode(tmp_path / "x.png")[1, 1].tolist() == [90] * 3


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "x.jpg", quality=98)
    array, info = inspect(tmp_path / "x.jpg")
    assert info.format == "JPEG" and np.abs(array.astype(int) - smooth()).mean() < 3


def test_jpeg_quality_is_recovered(tmp_path):
    for quality in (1, 30, 50, 75, 90, 95, 100):
        Image.fromarray(smooth()).save(tmp_path / "x.jpg", quality=quality, progressive=quality == 75)
        assert inspect(tmp_path / "x.jpg")[1].jpeg_quality == quality
    assert jpeg_quality({0: [1] * 64}) == jpeg_quality({2: [1] * 64, 3: [9] * 64}) == 100  # files may number them from anywhere
    assert jpeg_quality({}) is None is jpeg_quality(None)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_every_bit(tmp_path, channels):
    array = noise(1, (13, 11, channels), np.uint16)
    array[0, 0], array[0, 1] = 0, 65535
    if channels == 4:
        array[..., 3] = 65535
        array[5, 5] = 1000, 2000, 3000, 0
    (tmp_path / "x.png").write_bytes(png16(array))
    read, info = inspect(tmp_path / "x.png")
    expected = np.repeat(array, 3, axis=2) if channels == 1 else array[..., :3].copy()
    if channels == 4:
        expected[5, 5] = 65535
    assert read.dtype == np.uint16 and info.bits == 16
    np.testing.assert_array_equal(read, expected)
    assert read_image(tmp_path / "x.png").max() == 1 and len(read_image(tmp_path / "x.png").unique()) > 256 // 2


def test_half_transparent_16_bit_is_mixed_in_16_bits(tmp_path):
    (tmp_path / "x.png").write_bytes(png16(np.full((2, 2, 4), (10001, 20002, 65535, 30003), np.uint16)))
    expected = [round((c * 30003 + 65535 * (65535 - 30003)) / 65535) for c in (10001, 20002, 65535)]
    assert decode(tmp_path / "x.png")[0, 0].tolist() == expected


def test_16_bit_grey_with_alpha_is_read_at_8_bits(tmp_path):
    array = np.full((4, 4, 2), (0x1234, 0xFFFF), np.uint16)
    (tmp_path / "x.png").write_bytes(png16(array))
    read = decode(tmp_path / "x.png")
    assert read.dtype == np.uint8 and np.all(read == 0x12)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_16_bit_tiff_keeps_every_bit(tmp_path, order, deflate):
    array = noise(2, (9, 7, 3), np.uint16)
    (tmp_path / "x.tif").write_bytes(tiff16(array, order, deflate))
    np.testing.assert_array_equal(decode(tmp_path / "x.tif"), array)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_16_bit_grey_tiff_keeps_every_bit(tmp_path, compression):
    array = noise(3, (9, 7), np.uint16)
    Image.fromarray(array).save(tmp_path / "x.tif", compression=compression)
    np.testing.assert_array_equal(decode(tmp_path / "x.tif"), np.repeat(array[..., None], 3, axis=2))


def test_16_bit_tiff_whose_zero_is_white(tmp_path):
    array = noise(3, (9, 7), np.uint16)
    Image.fromarray(array).save(tmp_path / "x.tif")
    black, white = (struct.pack("<HHII", 262, 3, 1, value) for value in (1, 0))
    content = (tmp_path / "x.tif").read_bytes()
    assert content.count(black) == 1
    (tmp_path / "x.tif").write_bytes(content.replace(black, white))
    np.testing.assert_array_equal(decode(tmp_path / "x.tif")[..., 0], 65535 - array)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_in_planes_is_refused(tmp_path, order):
    """Pillow takes such planes for 8 bits each."""
    joined, apart = (struct.pack(order + "HHII", 284, 4, 1, value) for value in (1, 2))
    content = tiff16(noise(2, (9, 7, 3), np.uint16), order)
    assert content.count(joined) == 1
    (tmp_path / "x.tif").write_bytes(content.replace(joined, apart))
    with pytest.raises(UserError, match=r"x\.tif cannot be read: planes of 16 bits are not read"):
        decode(tmp_path / "x.tif")


def test_a_colour_that_is_transparent_becomes_white_at_16_bits(tmp_path):
    array = noise(4, (6, 5, 3), np.uint16)
    array[2, 3] = array[4, 1] = 258, 772, 65534
    array[0, 0] = 258, 772, 65535  # not that colour
    (tmp_path / "x.png").write_bytes(png16(array, key=struct.pack(">HHH", 258, 772, 65534)))
    expected = array.copy()
    expected[2, 3] = expected[4, 1] = 65535
    np.testing.assert_array_equal(decode(tmp_path / "x.png"), expected)
    (tmp_path / "x.png").write_bytes(png16(array[..., :1], key=struct.pack(">H", 258)))
    expected = np.where(array[..., :1] == 258, 65535, array[..., :1]).repeat(3, axis=2)
    np.testing.assert_array_equal(decode(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_that_is_transparent_becomes_white(tmp_path, bits):
    array = np.arange(32).reshape(4, 8) % 2**bits
    (tmp_path / "x.png").write_bytes(grey_png(array, bits, key=1))
    expected = np.where(array == 1, 255, array * 255 // (2**bits - 1))
    np.testing.assert_array_equal(decode(tmp_path / "x.png")[..., 0], expected)
    (tmp_path / "x.png").write_bytes(grey_png(array, bits, key=0))
    expected = np.where(array == 0, 255, array * 255 // (2**bits - 1))
    np.testing.assert_array_equal(decode(tmp_path / "x.png")[..., 0], expected)


def test_the_same_picture_is_equal_at_8_and_16_bits(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "8.png")
    (tmp_path / "16.png").write_bytes(png16(noise().astype(np.uint16) * 257))
    for size, fit in ((None, "resize"), (8, "crop")):
        torch.testing.assert_close(*(read_image(tmp_path / f"{bits}.png", size, fit) for bits in (8, 16)), rtol=0, atol=1e-7)
    torch.testing.assert_close(*(read_image(tmp_path / f"{bits}.png", 8) for bits in (8, 16)), rtol=0, atol=1.01 / 255)


def test_pixels_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"x\.tif.*32 bits"):
        decode(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(smooth(12, 20)).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    array, info = inspect(path)
    with Image.open(path) as image:
        image.load()
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(array, expected)
    assert (info.width, info.height) == ((12, 20) if orientation > 4 else (20, 12))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_truncated_files_are_found(tmp_path, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(noise(4, (64, 64, 3))).save(whole)
    data, pixels = whole.read_bytes(), decode(whole)
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.97):
        cut.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match=f"cut.{suffix} cannot be read: "):
            decode(cut)
    for lost in (1, 2, 7, 15):
        cut.write_bytes(data[:-lost])
        with contextlib.suppress(UserError):
            np.testing.assert_array_equal(decode(cut), pixels)  # every pixel was there still


def test_a_truncated_16_bit_png_is_found(tmp_path):
    data = png16(noise(5, (32, 32, 3), np.uint16))
    (tmp_path / "x.png").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match=r"x\.png"):
        decode(tmp_path / "x.png")


@given(at=st.integers(0, 2000), value=st.integers(0, 255), suffix=st.sampled_from(["png", "jpg", "webp", "bmp", "tif"]))
@settings(max_examples=60)
def test_damage_never_escapes_as_another_error(tmp_path_factory, at, value, suffix):
    path = tmp_path_factory.mktemp("damage") / f"x.{suffix}"
    Image.fromarray(noise(6, (16, 16, 3))).save(path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data)
    try:
        assert decode(path).shape[2] == 3
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"hello" * 100, "no PNG"), (None, "No such file")])
def test_what_is_no_image_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"x.png cannot be read: .*{reason}"):
        decode(path)


@pytest.mark.parametrize("shape", [(96, 80, 3), (20, 30, 3), (64, 32, 3)])
def test_resize_equals_torchvision_on_a_pil_image(tmp_path, shape):
    Image.fromarray(noise(7, shape)).save(tmp_path / "x.png")
    resize = v2.Resize((32, 32), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    expected = np.asarray(resize(Image.fromarray(noise(7, shape))))
    np.testing.assert_array_equal(read_array(tmp_path / "x.png", 32, "resize"), expected)


def test_crop_takes_the_centre_untouched(tmp_path):
    """As far as the grid of 8 pixels allows: up to 7 above and left of it."""
    for height, width, top, left in ((32, 48, 8, 16), (20, 31, 0, 0), (46, 63, 8, 16), (16, 64, 0, 24)):
        pixels = noise(8, (height, width, 3))
        Image.fromarray(pixels).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_array(tmp_path / "x.png", 16, "crop"), pixels[top : top + 16, left : left + 16])


def test_sizes_that_do_not_fit_are_named(tmp_path):
    Image.fromarray(noise(9, (20, 30, 3))).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png is 30 x 20, too small to crop 32 x 32"):
        read_image(tmp_path / "x.png", 32, "crop")
    with pytest.raises(UserError, match=r"x\.png is 30 x 20 and not 16 x 16"):
        read_image(tmp_path / "x.png", 16, "none")
    assert read_image(tmp_path / "x.png", None, "none").shape == (3, 20, 30)
    with pytest.raises(ValueError, match="fit must be"):
        fit_error("x.png", 30, 20, 16, "stretch")


def test_tensors_are_contiguous_float32_in_0_1():
    for kind in (np.uint8, np.uint16):
        tensor = to_tensor(noise(10, (5, 6, 3), kind))
        assert tensor.dtype == torch.float32 and tensor.shape == (3, 5, 6) and tensor.is_contiguous()
        assert tensor.min() >= 0 and tensor.max() <= 1
        np.testing.assert_allclose(tensor.permute(1, 2, 0).numpy() * np.iinfo(kind).max, noise(10, (5, 6, 3), kind), rtol=1e-6)


def test_16_bit_images_are_resized_as_floats_and_rounded(tmp_path):
    pixels = noise(11, (24, 20, 3), np.uint16)
    (tmp_path / "x.png").write_bytes(png16(pixels))
    planes = [np.asarray(Image.fromarray(plane.astype(np.float32)).resize((8, 8), 2)) for plane in np.moveaxis(pixels, 2, 0)]
    found = read_array(tmp_path / "x.png", 8, "resize")
    assert found.dtype == np.uint16 and np.abs(found - np.stack(planes, 2)).max() <= 0.5


def test_quality_is_that_of_the_luma_table(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "x.jpg", quality=70)
    tables = Image.open(tmp_path / "x.jpg").quantization
    assert jpeg_quality({**tables, 1: [1] * 64}) == 70


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_machine_at_its_limits_damages_no_image(tmp_path, number):
    """It would be left out by --skip_bad."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def read():
        raise OSError(number, os.strerror(number), "a.png")

    with pytest.raises(OSError, match=r"a\.png") as told:
        inspect(tmp_path / "a.png", read)
    assert not isinstance(told.value, UserError)
