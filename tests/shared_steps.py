"""A few training steps on parts of a batch; several processes run this file, and test_distributed.py compares them with one.

python shared_steps.py FOLDER writes FOLDER/<rank>.pt, and what commands leave in the current folder.
"""

import contextlib
import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torchvision.models.resnet import Bottleneck, ResNet

from detect_commands import training
from detect_commands.before_after import before_after
from detect_commands.detect import detect as detect_images
from detect_commands.judges import NetworkJudge
from detect_commands.options import parse_detect
from detect_commands.training import TrainingPlan
from gan_commands import monitor
from gan_commands.options import parse_gan
from gan_commands.sample import sample
from gan_commands.train import train
from models import detectors
from models.gan_training import GanConfig, GanTrainer
from models.stig import STIG, Objective
from models.training import Trainer
from utils.launch import run_processes
from utils.locks import let_go

CASES = {  # norm of the generator, pairs in the batch
    "uneven": ("none", 3),
    "one process without images": ("instance", 1),
    "batch norm": ("batch", 3),
}
GANS = {
    "spectral loss": {"adversarial": "gan", "spectral_loss": 0.5, "ema": 0.5},
    "penalty on the line": {"adversarial": "wgan-gp", "penalty": "zero", "critic_steps": 2, "setup": "B.1.3"},
    "penalty around reals": {"adversarial": "lsgan", "penalty": "one", "penalty_sample": "dragan"},
}
DETECTORS = {  # domain and epochs; a second one magnifies what rounding did to so small a network with batch normalisation
    "cnn": ("spectrum", 3),
    "cnn_whitened": ("opponent", 3),
    "vit": ("image", 3),
    "resnet50": ("image", 1),
}
TINY_VIT = {"patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16}


def gradients_of(network):
    """Copies of all gradients by name."""
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def steps(processes):
    """{case: gradients after the first step, and state and numbers after the second}."""
    found = {}
    for case, (norm, whole) in CASES.items():
        torch.manual_seed(0)
        model = STIG(16, Objective(sigma=4, patches=32, nce_levels=(0, 2)), norm=norm, width=8, centre=True)
        # At its start the last convolution is zero, and only contrastive gradients pass; once it is not, those of a normalised
        # network without training change by a tenth when its input changes by 1e-7, so nothing could be compared.
        if norm == "none":
            torch.nn.init.normal_(model.generator.final.weight, std=0.06)
        trainer = Trainer(model, 1e-3, 10, 0.5, processes)
        images = torch.rand(2, 2, whole, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        images[:, :, 1:2] *= 0.05  # unlike the others: a mean of roots is not the root of the mean
        for number, pair in enumerate(images):
            terms = trainer.train_step(*map(processes.own, pair), whole)
            if number == 0:
                gradients = gradients_of(trainer.model)
        state = {part: dict(trainer.state_dict()[part]) for part in ("model", "averaged")}
        found[case] = {"gradients": gradients, **state, "numbers": processes.numbers(terms)}
    return found


def gan_steps(processes):
    """{case: gradients after the second step (the first with a generator's), state, numbers and scores after the fourth}."""
    found = {}
    images = torch.rand(4, 5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    images[:, 1] *= 0.05  # unlike the others: the statistics of a part are not those of the whole
    for case, settings in GANS.items():
        torch.manual_seed(0)
        trainer = GanTrainer(GanConfig(size=16, dim=4, latent_dim=6, **settings), 1e-4, processes)
        networks = torch.nn.ModuleDict({"generator": trainer.generator, "discriminator": trainer.discriminator})
        for number, batch in enumerate(images):
            terms = trainer.step(processes.own(batch), len(batch))
            if number == 1:
                gradients = gradients_of(networks)
        states = dict(networks.state_dict())
        found[case] = {"gradients": gradients, "state": states, "numbers": processes.numbers(terms)}
    found["scores"] = monitor_scores(trainer.sampler, images, processes)
    return found


def monitor_scores(generator, images, processes):
    """{monitor: score of 70 samples}; pixels stand in for Inception's features."""
    features = mock.patch.object(monitor, "inception_features", lambda _, image: image.flatten(1)[:, :5].numpy())
    with mock.patch.object(monitor, "load_inception"), features:
        kinds = ("lfd", "fid", "kid")
        monitors = [monitor.GanMonitor(kind, None, images, 70, 0, processes) for kind in kinds]
        return {one.kind: one.score(generator) for one in monitors}


def detector_steps(processes, folder):
    """{classifier: state and number of the best epoch, and threshold}, logs in `folder`.

    There are more reals than fakes, in batches of 5, 5 and 4.
    """
    real, fake = torch.rand(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    fake[1] *= 0.05
    sides, found = [SimpleNamespace(images=images, label="side") for images in (real, fake)], {}
    split = {"real": {"train": range(9), "validation": range(9, 12)}, "fake": {"train": range(5), "validation": range(5, 8)}}
    small = functools.partial(ResNet, Bottleneck, [1, 1, 1, 1])
    changes = (detectors, "VIT", TINY_VIT), (detectors, "resnet50", small), (training, "CROP", 24)
    with contextlib.ExitStack() as stack:
        for change in changes:
            stack.enter_context(mock.patch.object(*change))
        for classifier, (domain, epochs) in DETECTORS.items():
            torch.manual_seed(0)
            augment = 0.5 if classifier == "resnet50" else None
            plan = TrainingPlan(epochs, 5, 1e-3, "sgd", patience=0, augment=augment, seed=0, num_workers=0)
            judge = NetworkJudge(classifier, 32, domain, None, processes, plan, folder / classifier)
            judge.fit(*sides, split)
            found[classifier] = {"state": dict(judge.network.state_dict()), "best": judge.best_epoch, "threshold": judge.threshold}
    return found


GAN = "train --data tiny --size 16 --dim 4 --latent_dim 8 --batch_size 3 --ema 0.5"
GAN += " --monitor lfd --monitor_samples 70 --log_frequency 1 --epochs 4"
DETECT = "--classifier cnn,knn --real real --fake fake --split 0.7 --num_samples 12 --runs 1 --class_batch_size 3 --lr 1e-3"


def commands(processes, name):
    """gan.py train and sample, and detect.py, in results/gan_<name>, drawn_<name>, results/detector_<name>.

    What has been begun is continued; all draw from results/gan_one.
    """
    begun = ["--resume"] if Path(f"results/gan_{name}").exists() else []
    train(parse_gan([*GAN.split(), "--dst", f"gan_{name}", *begun])[1], processes)
    sample(parse_gan(f"sample --dst gan_one --n 7 --batch_size 2 --out drawn_{name}".split())[1], processes)
    judge = [*DETECT.split(), "--dst", f"detector_{name}"]
    detect_images(parse_detect([*judge, "--class_epoch", "3", "--resume"]), processes)
    before_after(parse_detect([*judge, "--classifier", "cnn", "--class_epoch", "1", "--eval_root", "refined"]), processes)
    let_go()  # as the scripts do at their end


def main(folder):
    folder, options = Path(folder), SimpleNamespace(device="cpu", timeout=2.0)

    def work(_, processes):
        found = {"stig": steps(processes), "gan": gan_steps(processes), "detectors": detector_steps(processes, folder / "two")}
        torch.save(found, folder / f"{processes.rank}.pt")
        commands(processes, "two")

    run_processes(work, options, __file__, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
