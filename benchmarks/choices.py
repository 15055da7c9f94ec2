"""Train several variants with several seeds and put their closing tables side by side.

    python benchmarks/choices.py --data stargan_celeba --variants default --seeds 0,1,2 --holdout 0.2 --epoch 10
    python benchmarks/choices.py --data stargan_celeba --holdout 0.5 --epoch 4 --variants default,levels_all,bicubic,batch_norm

Each training is an ordinary run in results/choices/<variant>_<seed>; one that is finished is not repeated.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import train
from utils.report import COLUMNS
from utils.run_dir import read_json
from utils.tables import format_table

VARIANTS = {
    "default": [],
    "base_identity": ["--base", "identity"],
    "base_linear": ["--base", "linear"],
    "direct": ["--generator", "direct"],
    "released": ["--preset", "released"],
    "no_average": ["--ema", "0"],
    "levels_all": ["--nce_levels", "0,1,2,3,4"],
    "no_nce": ["--lambda_nce", "0"],
    "bicubic": ["--upsample", "bicubic"],
    "batch_norm": ["--norm", "batch"],
    "stretch": ["--image_range", "stretch"],
    "abs": ["--inverse", "abs"],
}


def run_table(variant, seed, args, extra):
    """The closing table of one training: dict row -> dict of numbers."""
    dst = f"choices/{variant}_{args.data}_{args.size}_{args.holdout}_{args.epoch}_{seed}"
    finished = Path("results") / dst / "table.json"
    if not finished.exists():
        options = ["--data", args.data, "--size", args.size, "--fit", "crop", "--holdout", args.holdout, "--epoch", args.epoch]
        options += ["--seed", seed, "--dst", dst, "--overwrite", *VARIANTS[variant], *extra]
        train.main([str(option) for option in options])
    return read_json(finished)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--variants", default="default", help=f"some of {','.join(VARIANTS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--size", default="64")
    parser.add_argument("--holdout", default="0.2")
    parser.add_argument("--epoch", default="10")
    args, extra = parser.parse_known_args()
    rows = {}
    for variant in args.variants.split(","):
        tables = [run_table(variant, seed, args, extra) for seed in args.seeds.split(",")]
        for name in tables[0]:
            label = f"{variant}: refined" if name == "refined" else name
            rows[label] = {column: mean_and_spread([table[name][column] for table in tables]) for column in COLUMNS}
    print(format_table(rows, COLUMNS))


def mean_and_spread(values):
    """ "mean ± standard deviation over the seeds", or None where there is no value."""
    if None in values:
        return None
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
