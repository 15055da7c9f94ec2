"""Training loop of detector networks: best epoch by validation, early stopping, resuming, balanced classes."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.logging import ScalarLog
from utils.perturbations import augment

FAKE, REAL = 0, 1  # the paper's classes


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained; `optimizer` is "sgd" (paper: momentum 0.9, rate x 0.95 per epoch) or "adam" (constant rate)."""

    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    patience: int  # stop after this many epochs without a lower validation loss; 0 never stops early
    augment: float | None  # probability of blur and of JPEG, None = images as they are
    crop: int
    seed: int
    num_workers: int


class LabelledImages(Dataset):
    """(image, label) of some reals and some fakes.

    Args:
        real, fake: indexable, [i] -> (3, S, S).
        real_indices, fake_indices: which of them.
        plan: its augmentation is applied, a fresh one per image and `epoch`; None = images as they are.
    """

    def __init__(self, real, real_indices, fake, fake_indices, plan=None):
        self.items = [(real, int(i), REAL) for i in real_indices] + [(fake, int(i), FAKE) for i in fake_indices]
        counts = torch.tensor([len(fake_indices), len(real_indices)], dtype=torch.float32)
        self.class_weights = counts.sum() / (2 * counts)  # (2,)
        self.plan, self.epoch = plan, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        source, index, label = self.items[number]
        image = source[index]
        if self.plan is not None and self.plan.augment is not None:
            generator = np.random.default_rng([self.plan.seed, self.epoch, number])
            image = augment(image, generator, self.plan.augment, self.plan.crop)
        return image, label


def _optimizer(network, plan):
    if plan.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=plan.lr)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=plan.lr, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)


def _train_epoch(network, images, optimizer, plan, device):
    """One pass in an order that depends on the seed and the epoch alone; returns the mean loss."""
    generator = torch.Generator().manual_seed(plan.seed * 10_007 + images.epoch)
    lonely = len(images) % plan.batch_size == 1 and len(images) > 1  # batch normalisation cannot train on one image
    loader = DataLoader(
        images,
        plan.batch_size,
        shuffle=True,
        generator=generator,
        num_workers=plan.num_workers,
        drop_last=lonely,
        pin_memory=device.type == "cuda",
    )
    weights = images.class_weights.to(device)
    network.train()
    total, count = torch.zeros((), device=device), 0
    for image, label in loader:
        logits = network(image.to(device, non_blocking=True))
        loss = cross_entropy(logits, label.to(device, non_blocking=True), weight=weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(image)
        count += len(image)
    return total.item() / count


@torch.no_grad()
def validate(network, images, batch_size, device):
    """Loss and balanced accuracy over `LabelledImages`, both classes counting alike."""
    network.eval()
    logits, labels = [], []
    for image, label in DataLoader(images, batch_size):
        logits.append(network(image.to(device)).double().cpu())
        labels.append(label)
    logits, labels = torch.cat(logits), torch.cat(labels)
    right = logits.argmax(1) == labels
    accuracy = sum(right[labels == label].double().mean().item() for label in (FAKE, REAL)) / 2
    return cross_entropy(logits, labels, weight=images.class_weights.double()).item(), accuracy


@torch.no_grad()
def network_logits(network, images, indices, batch_size, device, change=None):
    """Logits (N, 2) of some images of a set, float64 on the CPU; `change(image, index)` alters each first."""
    network.eval()
    parts = []
    for start in range(0, len(indices), batch_size):
        chosen = [int(i) for i in indices[start : start + batch_size]]
        batch = torch.stack([images[i] if change is None else change(images[i], i) for i in chosen])
        parts.append(network(batch.to(device)).double().cpu())
    return torch.cat(parts)


def train_network(network, train, validation, plan, device, folder):
    """Train in place and end at the epoch with the lowest validation loss.

    Every epoch leaves folder/last.pt, from which a later call with the same arguments goes on; at the end it is removed.

    Args:
        network: images (N, 3, S, S) -> logits (N, 2), fake and real; on `device`.
        train, validation: `LabelledImages`.
        folder: gets log.csv, tensorboard/ and, while training, last.pt and best.pt.
    Returns: the number of the best epoch, from 0.
    """
    folder = Path(folder)
    optimizer, scheduler = _optimizer(network, plan)
    start, best_epoch, best_loss = 0, -1, float("inf")
    if (folder / "last.pt").is_file():
        last = load_checkpoint(folder / "last.pt", "detector-training")
        network.load_state_dict(last["network"])
        optimizer.load_state_dict(last["optimizer"])
        scheduler.load_state_dict(last["scheduler"])
        start, best_epoch, best_loss = last["epoch"] + 1, last["best_epoch"], last["best_loss"]
    log = ScalarLog(folder, resume_step=start - 1 if start else None)
    bar = tqdm(range(start, plan.epochs), initial=start, total=plan.epochs, desc=f"training {folder.parent.name}", delay=1)
    for epoch in bar:
        if plan.patience and epoch - 1 - best_epoch >= plan.patience:
            break
        train.epoch = epoch
        train_loss = _train_epoch(network, train, optimizer, plan, device)
        scheduler.step()
        loss, accuracy = validate(network, validation, plan.batch_size, device)
        log.write(epoch, {"train_loss": train_loss, "validation_loss": loss, "validation_balanced_accuracy": accuracy})
        bar.set_postfix(loss=f"{train_loss:.3f}", validation=f"{loss:.3f}", accuracy=f"{accuracy:.2f}")
        if loss < best_loss:
            best_epoch, best_loss = epoch, loss
            save_checkpoint(folder / "best.pt", "detector-training", {"network": network.state_dict()})
        progress = {"epoch": epoch, "best_epoch": best_epoch, "best_loss": best_loss}
        states = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        save_checkpoint(folder / "last.pt", "detector-training", {**progress, **states})
    log.close()
    network.load_state_dict(load_checkpoint(folder / "best.pt", "detector-training")["network"])
    return best_epoch


def remove_progress(folder):
    """Delete what `train_network` keeps for resuming, once the detector itself is saved."""
    for name in ("last.pt", "best.pt"):
        (Path(folder) / name).unlink(missing_ok=True)
