"""Two training steps on parts of a batch; several processes run this file, and test_distributed.py compares them with one.

python shared_steps.py FOLDER writes FOLDER/<rank>.pt
"""

import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from models.stig import STIG, Objective
from models.training import Trainer
from utils.launch import run_processes

CASES = {  # norm of the generator, pairs in the batch
    "uneven": ("none", 3),
    "one process without images": ("instance", 1),
    "batch norm": ("batch", 3),
}


def steps(processes):
    """{case: gradients after the first step, and state and numbers after the second}."""
    found = {}
    for case, (norm, whole) in CASES.items():
        torch.manual_seed(0)
        model = STIG(16, Objective(sigma=4, patches=32, nce_levels=(0, 2)), norm=norm)
        # At its start the last convolution is zero, and only contrastive gradients pass; once it is not, those of a normalised
        # network without training change by a tenth when its input changes by 1e-7, so nothing could be compared.
        if norm == "none":
            torch.nn.init.normal_(model.generator.final.weight, std=0.02)
        trainer = Trainer(model, 1e-3, 10, 0.5, processes)
        images = torch.rand(2, 2, whole, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        images[:, :, 1:2] *= 0.05  # unlike the others: a mean of roots is not the root of the mean
        for number, pair in enumerate(images):
            mine = [side[processes.rank :: processes.world] for side in pair]
            mine = [side if len(side) else full[:1] for side, full in zip(mine, pair, strict=True)]
            terms = trainer.train_step(*mine, whole)
            if number == 0:
                gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
                gradients = {name: gradient.clone() for name, gradient in gradients.items()}
        state = {part: dict(trainer.state_dict()[part]) for part in ("model", "averaged")}
        found[case] = {"gradients": gradients, **state, "numbers": processes.numbers(terms)}
    return found


def main(folder):
    options = SimpleNamespace(device="cpu", timeout=2.0)
    run_processes(lambda _, processes: torch.save(steps(processes), Path(folder) / f"{processes.rank}.pt"), options, __file__, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
