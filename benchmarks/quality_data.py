"""The images of the quality benchmark: which are development and which are test, and their crops of native pixels."""

import dataclasses
import hashlib
from pathlib import Path

import torch

from data.checking import check_images
from data.copies import file_sum
from data.demo import make_demo
from data.listing import DATASETS, ImagePaths, list_images
from data.pairs import pair_key
from data.reading import IMAGE_SUFFIXES, read_image
from data.training import DEMO
from utils.errors import UserError
from utils.files import atomic_folder, read_json, write_json
from utils.pictures import write_png
from utils.result_files import output_names

HOME = "quality"  # crops lie in datasets/quality, runs in results/quality
PARTS = {"validation": ("fit", "validation"), "test": ("development", "test")}  # what is judged -> (fitted on, judged)
DEMO_IMAGES, DEMO_SEED = 100, 71  # of the benchmark's own demo set: other images than those of `--data demo`
SOURCES = "sources.json"  # in a part's folder: by which the files that its crops are of are known again
FEWEST = 7  # images of a class in a part: five folds then train on five or more


@dataclasses.dataclass(frozen=True)
class Images:
    """Images in memory: names (file names) and pixels (N, 3, S, S) float32, 8-bit values in [0, 1]."""

    names: list
    pixels: torch.Tensor

    def __len__(self):
        return len(self.names)

    def take(self, count):
        """The first `count` images in the order of the split's hash: a fixed sample."""
        chosen = sorted(sorted(range(len(self)), key=lambda i: rank(scene(self.names[i])))[:count])
        return Images([self.names[i] for i in chosen], self.pixels[chosen])


@dataclasses.dataclass(frozen=True)
class Case:
    """One set, ready to fit and to judge on: four `Images`, of which the judged ones are called real and fake."""

    name: str
    size: int
    part: str
    fit_real: Images
    fit_fake: Images
    real: Images
    fake: Images

    @property
    def folders(self):
        """Names in datasets/ of what is fitted on and what is judged: for train.py's --data and --test_data."""
        return tuple(f"{HOME}/{self.name}_{self.size}/{part}" for part in PARTS[self.part])


def scene(name):
    """What a file shows, by its name: `pair_key`, also of a crop that is called a.jpg.png because there was an a.png, too."""
    while Path(name).suffix.lower() in IMAGE_SUFFIXES:
        name = Path(name).stem
    return pair_key(f"{name}.png")


def rank(key):
    """Place of a scene in the fixed random order of all scenes."""
    return hashlib.sha256(key.encode()).digest()


def strata(real_keys, fake_keys):
    """Scenes that both classes show, that only reals show, and that only fakes show: three lists in hash order."""
    real, fake = set(real_keys), set(fake_keys)
    return [sorted(keys, key=rank) for keys in (real & fake, real - fake, fake - real)]


def split_scenes(real_keys, fake_keys):
    """Which part every scene belongs to, by its hash alone: half is test, and of the development half again half each.

    Returns: {scene: "fit" | "validation" | "test"}; within each of the `strata` the halves are exact (odd ones go to test, then
        to fit).
    """
    parts = {}
    for keys in strata(real_keys, fake_keys):
        half = len(keys) // 2
        development, test = keys[:half], keys[half:]
        quarter = (half + 1) // 2
        parts |= dict.fromkeys(test, "test") | dict.fromkeys(development[:quarter], "fit")
        parts |= dict.fromkeys(development[quarter:], "validation")
    return parts


def split_set(real_paths, fake_paths):
    """The files of every part: {part: {side: paths}} for fit, validation, development (both of them) and test."""
    sides = {"real": real_paths, "fake": fake_paths}
    parts = split_scenes(*([scene(path.name) for path in paths] for paths in sides.values()))

    def of(*wanted):
        return {side: [path for path in paths if parts[scene(path.name)] in wanted] for side, paths in sides.items()}

    return {"fit": of("fit"), "validation": of("validation"), "development": of("fit", "validation"), "test": of("test")}


def available_sets(size):
    """Names of the sets that are there: folders of datasets/ with real/ and fake/, and the demo, which is made.

    Sets whose first images are smaller than `size` are left out.
    """
    found = []
    for folder in sorted(DATASETS.glob("*")):
        sides = [folder / side for side in ("real", "fake")]
        if folder.name != DEMO and all(side.is_dir() for side in sides):
            infos = check_images([list_images(side)[0] for side in sides])[1]
            if min(min(info.width, info.height) for info in infos) >= size:
                found.append(folder.name)
    return [*found, DEMO]


def source_folder(name, size):
    """Folder of a set's whole images; the demo is made on first use. Raises: UserError if the set is not there."""
    if name == DEMO:
        folder = DATASETS / HOME / f"{DEMO}_{size}" / "source"
        return folder if folder.exists() else make_demo(folder, DEMO_IMAGES, size, DEMO_SEED)
    folder = DATASETS / name
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; put photographs in {folder}/real and generated images in {folder}/fake")
    return folder


def write_part(folder, paths, size):
    """Write centre crops folder/{real,fake}/<name>.png of the files {side: paths}, all or nothing, unless they are there.

    Raises: UserError if the folder holds crops of other files, or a file cannot be read or is too small.
    """
    names = {side: [str(name) for name in output_names(files)] for side, files in paths.items()}
    sources = {side: file_sum(ImagePaths.of(files)) for side, files in paths.items()}
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            write_json(temporary / SOURCES, sources)
            for side, files in paths.items():
                for name, path in zip(names[side], files, strict=True):
                    write_png(temporary / side / name, read_image(path, size, "crop"))
    held = {side: [path.name for path in list_images(folder / side)] for side in paths}
    made_of = read_json(folder / SOURCES) if (folder / SOURCES).is_file() else sources
    if made_of != sources or held != {side: sorted(files) for side, files in names.items()}:
        raise UserError(f"{folder} holds crops of other images than its source does now; delete it to have it made anew")


def read_images(folder):
    """`Images` of a folder of crops."""
    paths = list_images(folder)
    return Images([path.name for path in paths], torch.stack([read_image(path) for path in paths]))


def open_case(name, size, part):
    """Crop what is missing of the two parts that are needed, and read them; no file of another part is opened.

    Args:
        name: a set in datasets/, or "demo". size: side of the crops. part: "validation" or "test", what is judged.
    Raises: UserError if the set is missing or too small, or an image cannot be read.
    """
    source, home = source_folder(name, size), DATASETS / HOME / f"{name}_{size}"
    split = split_set(*(list_images(source / side) for side in ("real", "fake")))
    images = []
    for chosen in PARTS[part]:
        for side, paths in split[chosen].items():
            if len(paths) < FEWEST:
                raise UserError(f"{source / side} leaves {len(paths)} images for {chosen}; {FEWEST} are needed: add images")
        write_part(home / chosen, split[chosen], size)
        images += [read_images(home / chosen / side) for side in ("real", "fake")]
    return Case(name, size, part, *images)
