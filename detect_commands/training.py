"""Training loop of detector networks: best epoch by validation, early stopping, resuming, balanced classes."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from detect_commands.image_sets import Chosen
from models.detectors import FAKE, REAL
from models.optimisers import load_optimiser, load_scheduler
from utils.ahead import read_ahead
from utils.checkpoint import check_state, fitting, load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.interrupts import StopRequest
from utils.logging import open_log
from utils.measure import batches
from utils.perturbations import augment

CROP = 224  # resnet50's training crop
RESUMING = "go on with --resume"  # where a disk is full: of several detectors it begins what is not there
AHEAD = {"class_epoch", "patience"}  # of what shapes a detector, what may be more when it goes on


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained; `optimizer` is "sgd" (paper: momentum 0.9, rate x 0.95 per epoch) or "adam" (constant rate)."""

    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    patience: int  # stop after this many epochs without a lower validation loss; 0 never stops early
    augment: float | None  # probability of blur and of JPEG, None = images as they are
    seed: int
    num_workers: int


class LabelledImages:
    """(image, label) of some reals and some fakes.

    Args:
        real, fake: indexable, [i] -> (3, S, S).
        real_indices, fake_indices: which of them.
        plan: its augmentation is applied, a fresh one per image and `epoch`; None = images as they are.
    """

    def __init__(self, real, real_indices, fake, fake_indices, plan=None):
        self.items = [(real, int(i), REAL) for i in real_indices] + [(fake, int(i), FAKE) for i in fake_indices]
        counts = torch.bincount(self.labels, minlength=2).float()
        self.class_weights = counts.sum() / (2 * counts)  # (2,)
        self.plan, self.epoch = plan, 0

    @property
    def labels(self):
        """(N,) int64."""
        return torch.tensor([label for _, _, label in self.items])

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        source, index, label = self.items[number]
        image = source[index]
        if self.plan is not None and self.plan.augment is not None:
            generator = np.random.default_rng([self.plan.seed, self.epoch, number])
            image = augment(image, generator, self.plan.augment, CROP)
        return image, label

    def unlabelled(self):
        """The images alone."""
        return Chosen(self, range(len(self)), lambda item, _: item[0])

    def batch(self, numbers, pinned=False):
        """Images (N, 3, S, S) and labels (N,) of these numbers, in pinned memory if a GPU will take them."""
        images, labels = zip(*(self[number] for number in numbers), strict=True)
        parts = torch.stack(images), torch.tensor(labels)
        return tuple(part.pin_memory() for part in parts) if pinned else parts


def _optimizer(network, plan):
    if plan.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=plan.lr)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=plan.lr, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)


def balanced_loss(logits, label, class_weights, processes):
    """Cross-entropy as a mean over a batch in which each image counts by the weight of its class.

    Args:
        logits: (N, 2). label: (N,). class_weights: (2,).
        processes: `Processes` that share the batch; their `mean` of what each returns is the whole batch's loss.
    Returns: scalar.
    """
    losses = cross_entropy(logits, label, weight=class_weights, reduction="none")  # (N,)
    return losses.mean() / processes.mean(class_weights[label].mean())


def epoch_batches(count, plan, epoch):
    """Numbers of `count` images in batches, in an order that depends on the seed and the epoch alone.

    A last batch of one image is left out: batch normalisation cannot train on it.
    """
    generator = torch.Generator().manual_seed(plan.seed * 10_007 + epoch)
    torch.empty((), dtype=torch.int64).random_(generator=generator)  # what a DataLoader draws first: the order is as with it
    order = torch.randperm(count, generator=generator).tolist()
    if count % plan.batch_size == 1 and count > 1:
        order.pop()
    return [order[start : start + plan.batch_size] for start in range(0, len(order), plan.batch_size)]


def _train_epoch(network, images, optimizer, plan, processes, stop):
    """One pass in the order of `epoch_batches`.

    Returns: the mean loss, or None if the user asked a process to stop.
    """
    device = processes.device
    parts = [processes.own(part) for part in epoch_batches(len(images), plan, images.epoch)]
    weights, parameters = images.class_weights.to(device), list(network.parameters())
    network.train()
    total, count = torch.zeros((), device=device), 0
    for image, label in read_ahead(functools.partial(images.batch, pinned=device.type == "cuda"), parts, plan.num_workers):
        processes.begin(min(plan.batch_size, len(images) - count))
        logits = network(image.to(device, non_blocking=True))
        loss = balanced_loss(logits, label.to(device, non_blocking=True), weights, processes)
        optimizer.zero_grad(set_to_none=True)
        processes.backward(loss, parameters)
        optimizer.step()
        total += loss.detach() * processes.weight * processes.whole
        count += processes.whole
        if processes.any(stop.asked):
            return None
    return processes.sum(total).item() / count


def validate(network, images, batch_size, processes, num_workers=0):
    """Loss and balanced accuracy over `LabelledImages`, both classes counting alike; the same in all `processes`."""
    logits = network_logits(network, images.unlabelled(), "validation", batch_size, processes, num_workers)
    labels = images.labels
    right = logits.argmax(1) == labels
    accuracy = sum(right[labels == label].double().mean().item() for label in (FAKE, REAL)) / 2
    loss = cross_entropy(logits, labels, weight=images.class_weights.double()).item()
    return processes.once(lambda: (loss, accuracy))  # which epoch is the best must not hang on another host's rounding


@torch.no_grad()
def network_logits(network, images, title, batch_size, processes, num_workers=0):
    """Logits (N, 2) of a dataset of images, float64 on the CPU.

    Args:
        title, num_workers: as `utils.measure.batches`.
        processes: `Processes` that share the images in whole batches; each of them gets all logits.
    """
    network.eval()
    mine = Chosen(images, processes.block(len(images), batch_size))
    read = batches(mine, title, processes.device, batch_size, num_workers)
    gathered = processes.gather([network(image).cpu().double() for image in read])
    return processes.once(lambda: torch.cat([part for parts in gathered for part in parts]))


def check_origin(path, found, wanted, advice):
    """UserError if a detector, or what a training left of one, was made otherwise.

    Args:
        path: where it is kept.
        found, wanted: what it was made with and what it must have been made with: "identity" and "training", dicts of plain values,
            "names", the split, and "bytes", `file_sum` of its parts. Only what is wanted is compared.
        advice: end of the sentence.
    """
    for kind in ("identity", "training"):
        for name, value in wanted.get(kind, {}).items():
            if found[kind].get(name) != value:
                raise UserError(f"{path} was made with {name} = {found[kind].get(name)}, not {value}; {advice}")
    if "names" in wanted and found["names"] != wanted["names"]:
        raise UserError(f"{path} was made of other images than those now in the folders (or of another part of them); {advice}")
    if "bytes" in wanted and found.get("bytes", wanted["bytes"]) != wanted["bytes"]:
        raise UserError(f"{path} was made of images of these names, but of other contents than they have now; {advice}")


def check_progress(path, found, origin):
    """UserError if what an interrupted training left (the content of `path`) is of another origin, as `check_origin` takes it."""
    wanted = {kind: {name: value for name, value in made.items() if name not in AHEAD} for kind, made in origin.items()}
    check_origin(path, found, wanted, "give the same options to resume, or --overwrite")


def train_network(network, train, validation, plan, folder, processes, origin=None):
    """Train in place and end at the epoch with the lowest validation loss.

    Every epoch leaves folder/last.pt, from which a later call with the same arguments goes on, on any number of processes; at the
    end it is removed.

    Args:
        network: images (N, 3, S, S) -> logits (N, 2), fake and real; on the device of `processes`.
        train, validation: `LabelledImages`.
        folder: gets log.csv, tensorboard/ and, while training, last.pt and best.pt.
        processes: `Processes` that share each batch; every one of them trains, all stay alike, and the main one writes.
        origin: what the training is one of, as `check_origin` takes it; what is resumed must be of the same.
    Returns: the number of the best epoch, from 0.
    Raises: KeyboardInterrupt in all processes, after a step, if one was asked to stop; UserError if what is resumed is
            damaged or of another origin, or a loss is not finite.
    """
    folder, origin = Path(folder), origin or {}
    optimizer, scheduler = _optimizer(network, plan)
    start, best_epoch, best_loss = 0, -1, float("inf")
    if processes.once((folder / "last.pt").is_file):
        start, best_epoch, best_loss = _resume(network, optimizer, scheduler, folder, processes, plan, origin)
    title = f"training {'/'.join(folder.parts[-2:])}"  # cnn_classifier/run_00
    bar = tqdm(initial=start, total=plan.epochs, desc=title, unit="epoch", delay=1)
    with open_log(folder, start or None, processes) as log, StopRequest(processes.world > 1) as stop, bar:
        for epoch in range(start, plan.epochs):
            if plan.patience and epoch - 1 - best_epoch >= plan.patience:
                break
            train.epoch = epoch
            train_loss = _train_epoch(network, train, optimizer, plan, processes, stop)
            if train_loss is None:
                break
            scheduler.step()
            loss, accuracy = validate(network, validation, plan.batch_size, processes, plan.num_workers)
            if not math.isfinite(train_loss + loss):
                raise UserError(f"the loss is not finite in epoch {epoch + 1} of {folder}; try a lower --lr, with --overwrite")
            bar.set_postfix(loss=f"{train_loss:.3f}", validation=f"{loss:.3f}", accuracy=f"{accuracy:.2f}", refresh=False)
            bar.update()
            is_best = loss < best_loss
            best_epoch, best_loss = (epoch, loss) if is_best else (best_epoch, best_loss)
            if processes.main:
                log.write(epoch + 1, {"train_loss": train_loss, "validation_loss": loss, "validation_balanced_accuracy": accuracy})
                states = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
                check_state(states, epoch + 1, f"try a lower --lr, with --overwrite ({folder})", "epoch")
                _save(folder, states, is_best, origin | {"epoch": epoch, "best_epoch": best_epoch, "best_loss": best_loss})
    if processes.any(stop.asked):
        processes.wait()  # a launcher ends the others as soon as one has ended
        raise KeyboardInterrupt
    _load(folder / "best.pt", network, processes)
    return best_epoch


def _resume(network, optimizer, scheduler, folder, processes, plan, origin):
    """Load what an interrupted training left: the epoch to go on with, the best one, and its loss; errors as `train_network`."""
    _load(folder / "best.pt", network, processes)  # what will be needed at the end
    last = _load(folder / "last.pt", network, processes)
    with fitting(folder / "last.pt"):
        check_progress(folder / "last.pt", last, origin)
        if int(last["epoch"]) >= plan.epochs:
            raise UserError(f"{folder} has {last['epoch'] + 1} epochs already; give --class_epoch that or more, or --overwrite")
        made = last.get("training", {}).get("patience", plan.patience)
        if plan.patience and not 0 < made <= plan.patience:  # it might have ended before, with another detector
            wanted = f"{made}, more or 0" if made else "0"
            raise UserError(f"{folder} was trained with --patience {made}; give {wanted} to resume, or --overwrite")
        load_optimiser(optimizer, last["optimizer"])
        load_scheduler(scheduler, last["scheduler"])
        return int(last["epoch"]) + 1, int(last["best_epoch"]), float(last["best_loss"])


def _save(folder, states, is_best, progress):
    """Keep the states after an epoch: the network's alone if it is the best so far, and all with the progress, to go on from."""
    if is_best:
        save_checkpoint(folder / "best.pt", "detector-training", {"network": states["network"]}, RESUMING)
    save_checkpoint(folder / "last.pt", "detector-training", progress | states, RESUMING)


def _load(path, network, processes):
    """The content of a checkpoint of a training, its network loaded; UserError if it is damaged."""
    content = processes.once(lambda: load_checkpoint(path, "detector-training"))
    with fitting(path):
        network.load_state_dict(content["network"])
    return content


def remove_progress(folder):
    """Delete what `train_network` keeps for resuming, once the detector itself is saved."""
    for name in ("last.pt", "best.pt"):
        (Path(folder) / name).unlink(missing_ok=True)
