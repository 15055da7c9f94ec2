"""gan.py study truncation: which frequencies to regularise."""

import numpy as np
from torch.utils.data import Subset

from gan_commands import figures
from gan_commands.common import BATCH, images_of
from gan_commands.pairs import open_pairs
from models.gan_losses import high_frequencies, magnitude_dissimilarity, one_sided_magnitude
from utils.arguments import as_plain
from utils.distributed import resolve_device
from utils.measure import batches
from utils.run_dir import check_run_folder, open_run_folder
from utils.seeding import seed_everything
from utils.tables import write_csv


def truncation(options):
    """Mean dissimilarity of pairs for every threshold from 1 to just under the highest frequency."""
    device = resolve_device(options.device)
    seed_everything(options.seed, options.deterministic)
    check_run_folder(options.dst, options.overwrite, inputs=(options.pairs,))
    real, fake, _ = open_pairs(options.pairs, options.num_workers)
    chosen = images_of(real, options.n, options.seed)
    thresholds = np.arange(1, min(real[0].shape[-2:]) // 2)
    sums = np.zeros((2, len(thresholds)))
    reading = (device, BATCH, options.num_workers)
    sides = [batches(Subset(images, chosen), side, *reading) for side, images in (("real", real), ("fake", fake))]
    for images in zip(*sides, strict=True):
        magnitudes = [one_sided_magnitude(image) for image in images]
        for column, threshold in enumerate(thresholds.tolist()):
            bands = [high_frequencies(magnitude, threshold) for magnitude in magnitudes]
            for row, metric in enumerate(("2", "cos")):
                sums[row, column] += magnitude_dissimilarity(*bands, metric).item() * len(images[0])
    frobenius, cosine = sums / len(chosen)
    folder = open_run_folder(options.dst, options.overwrite, inputs=(options.pairs,), settings=as_plain(options))
    derivative = np.gradient(frobenius, thresholds)
    header = ("threshold", "frobenius", "frobenius_derivative", "cosine")
    write_csv(
        folder / "truncation.csv",
        header,
        zip(thresholds.tolist(), frobenius.tolist(), derivative.tolist(), cosine.tolist(), strict=True),
    )
    figures.truncation_curves(thresholds, frobenius, cosine, folder / "truncation.png")
    print(f"{len(chosen)} pairs; truncation.csv and truncation.png are in {folder}")
