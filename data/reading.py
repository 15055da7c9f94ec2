"""One image file -> pixels: any usual format, depth and colour model becomes RGB, whole or not at all.

Grey and palette images are expanded, transparency is composited on white, CMYK is converted without a colour profile, the EXIF
orientation is applied, and of several frames the first is taken. Sources with 16 bits per channel stay uint16, with two
exceptions: of 16-bit PNGs with grey *and* alpha, and of 16-bit CMYK TIFFs, Pillow gives the upper eight bits only.
"""

import dataclasses
import functools
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from utils.errors import EXHAUSTED, UserError

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is no mistake; twice that is refused
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd EXIF and the like: they name no file, and what cannot be read is told

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
FITS = ("resize", "crop", "none")
GRID = 8  # pixels: crops begin at multiples, so that what upsampling or JPEG blocks left lies alike in images of any size
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_OTHER_CHUNKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # of a PNG: may turn the image
_UPRIGHT = {  # EXIF orientation -> what undoes it
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@dataclasses.dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a check keeps of an image: upright size in pixels, bits per channel, estimated JPEG quality (None: no JPEG).

    `several`: the file holds more frames than the first, which alone is read (second pictures of a photograph do not count).
    """

    path: Path
    format: str
    width: int
    height: int
    jpeg_quality: int | None
    bits: int = 8
    several: bool = False


@functools.lru_cache(maxsize=1)
def _luma_tables():
    """Luma quantisation tables of the usual JPEG qualities: (100, 64), row q - 1 for quality q."""
    tables = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        tables.append(Image.open(buffer).quantization[0])
    return np.array(tables)


def jpeg_quality(tables):
    """Quality 1..100 whose usual luma table is nearest to the first of a JPEG's tables, None if it has none.

    Args:
        tables: {number: 64 quantisation steps, in Pillow's order} or None.
    """
    if not tables:
        return None
    table = tables[min(tables)]
    return int(np.abs(_luma_tables() - np.asarray(table)).sum(axis=1).argmin()) + 1


def _low_byte_tiles(image):
    """Pillow reads colours of 16 bits as their upper byte; the byte order swapped, it reads the lower one.

    Returns: the tiles to decode for the lower byte, or None if `image` (not yet loaded) is of another kind.
    """
    tiles = []
    for tile in image.tile:
        arguments = tile[3]
        raw_mode, *rest = [arguments] if isinstance(arguments, str) else arguments or [""]
        if raw_mode not in (f"{image.mode};16B", f"{image.mode};16L", f"{image.mode};16N") or image.mode not in ("RGB", "RGBA"):
            return None
        native = "B" if sys.byteorder == "little" else "L"
        swapped = raw_mode[:-1] + {"B": "L", "L": "B", "N": native}[raw_mode[-1]]
        swapped = swapped if isinstance(arguments, str) else (swapped, *rest)
        tiles.append(tile._replace(args=swapped) if hasattr(tile, "_replace") else (*tile[:3], swapped))
    return tiles or None


def _keyed(array, key):
    """A 16-bit PNG's (H, W) or (H, W, 3) pixels with what its colour key says is transparent: (H, W, 4); as given without a key."""
    if key is None:
        return array
    colours = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    alpha = np.where((colours == np.asarray(key, np.uint16)).all(2, keepdims=True), 0, 65535)
    return np.concatenate([colours, alpha.astype(np.uint16)], axis=2)


def _pixels(image, content):
    """Pillow image of the file's bytes -> (H, W), (H, W, 3) or (H, W, 4) array, uint8 or uint16, not yet upright."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8:
        raise ValueError("planes of 16 bits are not read, save it with its colours interleaved (PlanarConfiguration 1)")
    key = image.info.get("transparency") if image.format == "PNG" else None
    tiles = _low_byte_tiles(image)
    image.load()
    if tiles:
        with Image.open(io.BytesIO(content), formats=FORMATS) as again:
            again.tile = tiles
            again.load()
            low = np.asarray(again)
        return _keyed(np.asarray(image).astype(np.uint16) << 8 | low, key)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        array = np.asarray(image).astype(np.uint16)
        return _keyed(65535 - array if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else array, key)
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no agreed range, save it with 8 or 16 bits")
    if image.mode in ("1", "L") and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2 ** content[24] - 1)  # as Pillow spread the pixels of less than 8 bits
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _to_rgb(array):
    """(H, W), (H, W, 3) or (H, W, 4) unsigned integers -> (H, W, 3) of the same type, transparency on white, rounded."""
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    if array.shape[2] == 3:
        return array
    white = np.uint32(np.iinfo(array.dtype).max)
    colour, alpha = array[..., :3].astype(np.uint32), array[..., 3:].astype(np.uint32)
    return ((colour * alpha + white * (white - alpha) + white // 2) // white).astype(array.dtype)


def header_info(path, read):
    """`ImageInfo` of an ordinary PNG or JPEG without decoding it, if the file is whole.

    A PNG's checksums must be right up to its end chunk, a JPEG must end in its end mark. Pixels that an encoder wrote wrongly under
    right checksums are not noticed here; whoever reads them is told.

    Args:
        path: names it. read: () -> bytes.
    Returns: `ImageInfo`, or None where only decoding can tell (other formats, 16 bits, damage).
    """
    try:
        content = read()
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            width, height = image.size
            if image.format == "PNG":
                if content[24] > 8 or any(mark in content for mark in _OTHER_CHUNKS):
                    return None
                several = image.is_animated
                image.verify()
                return ImageInfo(path, "PNG", width, height, None, several=several)
            if not content.endswith(b"\xff\xd9"):
                return None
            if image.getexif().get(ExifTags.Base.Orientation) in range(5, 9):
                width, height = height, width
            return ImageInfo(path, "JPEG", width, height, jpeg_quality(image.quantization))
    except MemoryError:
        raise
    except Exception:  # decoders raise anything on damaged files; decoding says what is wrong
        return None


def _decode(path, read):
    """Of a file: (H, W, 3) uint8 or uint16 array, format, JPEG quantisation tables or None, more frames or not. As `inspect`."""
    content = b""
    try:
        content = read() if read else Path(path).read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            array = _pixels(image, content)
            array = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation), lambda a: a)(array)
            tables = getattr(image, "quantization", None)
            image_format = "JPEG" if image.format == "MPO" else image.format
            several = image_format != "JPEG" and getattr(image, "is_animated", False)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        reason = "it is no PNG, JPEG, WebP, BMP or TIFF image" if content else "it is empty"
        raise UserError(f"{path} cannot be read: {reason}; replace or remove it") from None
    except Exception as error:  # decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            raise
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = "it is a link to nothing" if _is_dangling(path) else told
        raise UserError(f"{path} cannot be read: {reason}; replace or remove it") from error
    return np.ascontiguousarray(_to_rgb(array)), image_format, tables, several


def _is_dangling(path):
    return Path(path).is_symlink() and not Path(path).exists()


def inspect(path, read=None):
    """Decode a whole file.

    Args:
        path: an image file; its content counts, not its suffix.
        read: () -> its bytes, if it is not to be read from `path`.
    Returns: (H, W, 3) uint8 or uint16 array, and its `ImageInfo`.
    Raises: UserError naming the file if it is missing, truncated, damaged or no image.
    """
    array, image_format, tables, several = _decode(path, read)
    height, width, _ = array.shape
    return array, ImageInfo(Path(path), image_format, width, height, jpeg_quality(tables), 8 * array.itemsize, several)


def decode(path, read=None):
    """Pixels of an image file: (H, W, 3) uint8 or uint16; UserError naming the file if it cannot be read whole."""
    return _decode(path, read)[0]


def _resize(array, size):
    """Bilinear with antialiasing, as torchvision's Resize((size, size)) does to a PIL image."""
    if array.dtype == np.uint8:
        return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR))
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(array, 2, 0)]
    planes = [np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(planes, axis=2).round().astype(np.uint16)


def fit_error(name, width, height, size, fit):
    """Sentence saying why an image of this size cannot be fitted to (size, size), or None if it can."""
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
    if fit == "none" and (width, height) != (size, size):
        return f"{name} is {width} x {height} and not {size} x {size}; give --fit crop or resize, or another --size"
    if fit == "crop" and min(width, height) < size:
        return f"{name} is {width} x {height}, too small to crop {size} x {size} from; give a smaller --size or --fit resize"
    return None


def read_array(path, size=None, fit="resize", read=None):
    """Decode and fit: (size, size, 3), or (H, W, 3) if size is None; uint8 or uint16.

    Arguments and errors as `read_image`; read: as `inspect`.
    """
    array = decode(path, read)
    height, width = array.shape[:2]
    if size is None or (height, width) == (size, size):
        return array
    problem = fit_error(path, width, height, size, fit)
    if problem:
        raise UserError(problem)
    if fit == "resize":
        return _resize(array, size)
    top, left = ((side - size) // 2 // GRID * GRID for side in (height, width))
    return np.ascontiguousarray(array[top : top + size, left : left + size])


def to_tensor(array):
    """(H, W, 3) uint8 or uint16 -> (3, H, W) float32 tensor in [0, 1]."""
    scaled = np.ascontiguousarray(array.transpose(2, 0, 1)).astype(np.float32)
    scaled /= np.float32(np.iinfo(array.dtype).max)
    return torch.from_numpy(scaled)


def read_image(path, size=None, fit="resize"):
    """Read an image file.

    Args:
        path: image file.
        size: side of the result in pixels; None keeps the image's own size.
        fit: what to do with another size: "resize" (bilinear, sides scaled independently), "crop" (the centre, to within `GRID`),
            "none" (refuse).
    Returns: (3, H, W) float32 in [0, 1].
    Raises: UserError naming the file if it is unreadable or cannot be fitted.
    """
    return to_tensor(read_array(path, size, fit))
