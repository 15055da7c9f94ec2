"""Where the detectors of one classifier are made, saved and found again."""

from detect_commands.judges import FEWEST, ClassicalJudge, NetworkJudge, domains
from detect_commands.options import READ_BY
from detect_commands.protocol import PARTS
from detect_commands.training import RESUMING, TrainingPlan, check_origin, check_progress, remove_progress
from models.classical_detectors import CLASSICAL
from models.detectors import check_detector
from utils.checkpoint import fitting, load_checkpoint, save_checkpoint
from utils.distributed import Processes
from utils.errors import UserError
from utils.seeding import seed_everything

SHAPING = ("seed", "split", "num_samples", "fit")  # options that shape any detector, besides its identity


class Bench:
    """Makes, saves and reads the detectors of one classifier.

    Args:
        classifier: a name of `models.detectors.DOMAINS` or `models.classical_detectors.CLASSICAL`.
        size: side of the images.
        options: `DetectOptions` with the classifier's defaults filled in (`DetectOptions.of`), and a domain that it looks at.
        processes: `Processes` that share the work of networks; a classical detector's is not shared.
        weights: function that gives the ImageNet weights of vit and resnet50, called when nothing else is amiss; or None.
    Raises: UserError if the classifier cannot take this size or these weights, or is to be trained on batches that are too
        small.
    """

    def __init__(self, classifier, size, options, processes, weights=None):
        self.classifier, self.size, self.options = classifier, size, options
        self.shared = classifier not in CLASSICAL
        self.processes = processes if self.shared else Processes(processes.device)
        self.domain = options.domain or domains(classifier)[0]
        if options.is_train:
            self._check_batch(options.class_batch_size)
        self.pretrained = None
        if self.shared:
            self._check_network()
        if weights:
            self.pretrained = weights()
            self._check_network()

    def _check_batch(self, batch):
        if batch < self.processes.world:
            raise UserError(f"--class_batch_size {batch} is less than one image for each of the {self.processes.world} processes")
        if self.classifier == "resnet50" and batch == 1:
            raise UserError("--class_batch_size 1 is too small for resnet50: its batch normalisation needs two images or more")

    def _check_network(self):
        try:
            check_detector(self.classifier, self.size, self.domain, self.pretrained)
        except ValueError as error:
            raise UserError(f"--classifier {self.classifier}: {error}") from error

    def new_judge(self, run, folder, origin=None):
        """An unfitted judge; the same run starts the same way. Networks log to `folder`, and resume what has the same origin."""
        options, seed = self.options, self.options.seed + run
        if self.classifier in CLASSICAL:
            return ClassicalJudge(self.classifier, self.size, options.profile_corners, seed)
        plan = TrainingPlan(
            epochs=options.class_epoch,
            batch_size=options.class_batch_size,
            lr=options.lr,
            optimizer="adam" if self.classifier in ("cnn_whitened", "resnet50") else "sgd",
            patience=options.patience,
            augment=options.augment if self.classifier == "resnet50" else None,
            seed=seed,
            num_workers=options.num_workers,
        )
        seed_everything(seed, options.deterministic)
        return NetworkJudge(self.classifier, self.size, self.domain, self.pretrained, self.processes, plan, folder, origin)

    def identity(self):
        """What a saved detector must share with this bench to be used at all."""
        corners = self.options.profile_corners if self.classifier == "logreg" else None
        return {"classifier": self.classifier, "size": self.size, "domain": self.domain, "profile_corners": corners}

    def training(self, real, fake):
        """What else shapes a detector: training again with the same values gives the same detector."""
        own = [name for name, users in READ_BY.items() if self.classifier in users and name not in self.identity()]
        folders = {"real": real.folder.as_posix(), "fake": fake.folder.as_posix()}
        return folders | fake.made_by | {name: getattr(self.options, name) for name in (*SHAPING, *own)}

    def origin(self, real, fake, names):
        """What a detector of these images is made of, as `check_origin` takes it; arguments as `fit`."""
        sides = {"real": real, "fake": fake}
        sizes = {side: {part: images.file_sum(names[side][part]) for part in PARTS} for side, images in sides.items()}
        return {"identity": self.identity(), "training": self.training(real, fake), "names": names, "bytes": sizes}

    def check_finished(self, folder, origin=None):
        """UserError if `folder` holds a detector, finished or begun, that was made otherwise; as `load`, but no network is made."""
        path, begun = folder / "detector.pt", folder / "last.pt"
        if path.is_file():
            self._check(path, load_checkpoint(path, "detector"), origin)
        elif origin and begun.is_file():
            with fitting(begun):
                check_progress(begun, load_checkpoint(begun, "detector-training"), origin)

    def _check(self, path, content, origin):
        """`check_origin` of a detector's checkpoint, with advice."""
        identity, anew = {"identity": self.identity()}, "train one for this with --is_train True"
        if origin:
            anew = "leave it out of --classifier, choose another --dst, or have all of them trained anew by --overwrite"
        with fitting(path):
            check_origin(path, content, identity, anew)
            as_it_is = "judge with it as it is by --is_train False, " if self.options.mode == "detect" else ""
            check_origin(path, content, origin or identity, as_it_is + anew)

    def check(self, names):
        """UserError if a split (dict side -> dict part -> names) leaves too few images to train on."""
        fewest = min(len(parts["train"]) + len(parts["validation"]) for parts in names.values())
        if not self.shared and fewest < FEWEST:
            beside = " beside those that filters are fitted on" if any("filters" in parts for parts in names.values()) else ""
            raise UserError(
                f"{self.classifier} needs at least {FEWEST} training images per class{beside}, not {fewest}; add images, or "
                "raise --split or --num_samples"
            )

    def fit(self, folder, real, fake, names, run):
        """Train and save one detector, or read the finished one in `folder`.

        Args:
            real, fake: image sets.
            names: dict side -> dict part -> names, the split of this run.
        Returns: judge, content of its checkpoint.
        Raises: UserError if the finished one, or what an interrupted training left, is damaged or was trained otherwise.
        """
        path = folder / "detector.pt"
        origin, sides = self.origin(real, fake, names), {"real": real, "fake": fake}
        if self.processes.once(path.is_file):
            found = self.load(folder, origin)
            if self.processes.main:
                remove_progress(folder)  # an interruption may have come between saving and this
            return found
        judge = self.new_judge(run, folder, origin)
        split = {side: {part: images.indices(names[side][part]) for part in PARTS} for side, images in sides.items()}
        judge.fit(real, fake, split)
        content = {**origin, "trained_on": fake.label, **judge.content()}
        if self.processes.main:
            save_checkpoint(path, "detector", content, RESUMING)
            remove_progress(folder)
        return judge, content

    def load(self, folder, origin=None):
        """Read a saved detector: (judge, content).

        Args:
            origin: what it must have been made with, as `check_origin`; None = anything that has this bench's identity.
        Raises: UserError if it is not there, not a detector, or made for something else.
        """
        content = self.processes.once(lambda: load_checkpoint(folder / "detector.pt", "detector"))
        self._check(folder / "detector.pt", content, origin)
        with fitting(folder / "detector.pt"):
            sides, content["trained_on"] = ("real", "fake"), str(content["trained_on"])
            content["training"] |= {side: str(content["training"][side]) for side in sides}
            content["names"] = {side: {part: [*map(str, content["names"][side][part])] for part in PARTS} for side in sides}
        judge = self.new_judge(0, folder)
        with fitting(folder / "detector.pt"):
            judge.load(content)
        return judge, content
