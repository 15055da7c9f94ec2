"""Detector networks, classical detectors as plain arrays, their training."""

import io
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from small import TINY_VIT, photographs
from torch.utils.data import DataLoader
from torchvision.models import resnet50
from torchvision.models.vision_transformer import VisionTransformer

import models.detectors as detectors
from data.listing import ImagePaths
from detect_commands import judges, training
from detect_commands.bench import Bench
from detect_commands.judges import SMALLEST_DEVIATION, NetworkJudge
from detect_commands.options import parse_detect
from detect_commands.training import (
    LabelledImages,
    TrainingPlan,
    balanced_loss,
    epoch_batches,
    network_logits,
    train_network,
    validate,
)
from models.classical_detectors import CLASSICAL, classical_scores, fit_classical
from models.detectors import FAKE, REAL, Detector, PaperCNN, fake_score
from utils.aliases import alias_features
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.decay import decay_features
from utils.detector_features import classical_features
from utils.distributed import Processes
from utils.errors import UserError
from utils.fresh_detector import fold_numbers
from utils.interrupts import StopRequest, handling
from utils.linear_filter import OPPONENT, RGB, mixed
from utils.perturbations import PERTURBATIONS, augment, jpeg, resize
from utils.pretrained import pretrained_weights
from utils.profiles import log_profile

ALONE = Processes(torch.device("cpu"))


@pytest.fixture
def tiny_vit(monkeypatch):
    monkeypatch.setattr(detectors, "VIT", TINY_VIT)


def blobs(count=40, width=3, gap=2.0, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, (count, width)) * [1, 50, 0.01][:width], generator.normal(gap, 1, (count, width)) * [1, 50, 0.01][
        :width
    ]


# ---- networks


@pytest.mark.parametrize("size", [32, 64, 256])
def test_the_papers_cnn(size):
    network = PaperCNN(size)
    convolutions = [(3, 3), (3, 8), (8, 16), (16, 32)]
    expected = sum(9 * a * b + b for a, b in convolutions) + 2 * 32 * (size // 4) ** 2 + 2
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.rand(2, 3, size, size)).shape == (2, 2)


def test_spectrum_input_is_the_normalised_log_magnitude_of_each_image():
    detector = Detector("cnn", 32, "spectrum")
    image = torch.rand(2, 3, 32, 32)
    image[1] *= 0.1
    seen = detector.prepare(image)
    assert torch.equal(seen.flatten(1).amin(1), -torch.ones(2)) and torch.equal(seen.flatten(1).amax(1), torch.ones(2))
    magnitude = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(image[0].double().numpy()), axes=(-2, -1))))
    expected = 2 * (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min()) - 1
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("domain", detectors.DOMAINS["cnn_whitened"])
def test_whitened_bins_have_mean_0_and_deviation_1_over_the_training_images(tmp_path, domain):
    real, fake = photographs(12, seed=1), photographs(12, seed=2)
    sides = [SimpleNamespace(images=images, label="side") for images in (real, fake)]
    split = {side: {"train": range(8), "validation": range(8, 12)} for side in ("real", "fake")}
    judge = NetworkJudge("cnn_whitened", 32, domain, None, ALONE, plan(epochs=1), tmp_path)
    judge.fit(*sides, split)
    seen = judge.network.prepare(torch.cat([real[:8], fake[:8]])).double()
    varies = judge.network.whitening[1] > SMALLEST_DEVIATION  # the zero frequency is the largest magnitude of every image
    assert varies.sum() >= 3 * 32 * 32 - 3
    assert seen.mean(0).abs().max() < 1e-3 and (seen.std(0)[varies] - 1).abs().max() < 1e-3


@pytest.mark.parametrize("classifier, optimizer, rate", [("cnn", "sgd", 2e-4), ("cnn_whitened", "adam", 1e-3)])
def test_each_cnn_is_trained_its_own_way(tmp_path, classifier, optimizer, rate):
    options = parse_detect(["--dst", "x", "--classifier", classifier]).of(classifier)
    chosen = Bench(classifier, 32, options, ALONE).new_judge(0, tmp_path).plan
    assert (chosen.optimizer, chosen.lr) == (optimizer, rate)


def test_opponent_colours_show_what_varies_in_colour_alone(tmp_path):
    """Reals' red - blue varies in level from image to image, all else is as in the fakes: grey pictures are the same."""
    real, fake = photographs(60, seed=1), photographs(60, seed=2)
    factor = torch.linspace(-1.5, 1.5, 60)[torch.randperm(60, generator=torch.Generator().manual_seed(3))].exp()
    opponent = mixed(OPPONENT, real)
    opponent[:, 1] *= factor[:, None, None]
    real = mixed(RGB, opponent)
    sides = [SimpleNamespace(images=images, label="side") for images in (real, fake)]
    split = {side: {"train": range(40), "validation": range(40, 60)} for side in ("real", "fake")}
    accuracies = {}
    for classifier in ("cnn", "cnn_whitened"):
        chosen = plan(epochs=8, lr=1e-3, optimizer="adam", batch_size=8)
        torch.manual_seed(0)
        domain, processes = detectors.DOMAINS[classifier][0], ALONE
        judge = NetworkJudge(classifier, 32, domain, None, processes, chosen, tmp_path / classifier)
        judge.fit(*sides, split)
        scores = [judge.scores(side, range(40, 60)) > 0.5 for side in sides]
        accuracies[classifier] = ((~scores[0]).mean() + scores[1].mean()) / 2
    assert accuracies["cnn_whitened"] > accuracies["cnn"] + 0.2


def test_image_inputs(tiny_vit):
    image = torch.full((1, 3, 32, 32), 0.5)
    assert Detector("cnn", 32, "image").prepare(image).abs().max() == 0
    assert Detector("vit", 32, "image").prepare(image)[0, 0, 0, 0].item() == pytest.approx((0.5 - 0.485) / 0.229)


def test_the_vit_is_vit_b_16():
    with torch.device("meta"):
        network = VisionTransformer(image_size=224, num_classes=1000, **detectors.VIT)
    assert sum(p.numel() for p in network.parameters()) == 86_567_656


def test_vit_position_embeddings_are_interpolated(tiny_vit):
    state = VisionTransformer(image_size=224, num_classes=1000, **TINY_VIT).state_dict()
    ramp = torch.linspace(0, 1, 14)[None, :, None].expand(14, 14, 32).reshape(1, 196, 32)
    state["encoder.pos_embedding"] = torch.cat([torch.full((1, 1, 32), 9.0), ramp], dim=1)
    detector = Detector("vit", 64, "spectrum", state)
    positions = detector.network.encoder.pos_embedding[0]
    assert positions.shape == (17, 32) and torch.all(positions[0] == 9)
    grid = positions[1:, 0].reshape(4, 4)
    assert torch.all(grid.diff(dim=1) > 0.2) and torch.allclose(grid[0], grid[3])
    assert torch.equal(detector.network.conv_proj.weight, state["conv_proj.weight"])
    assert detector(torch.rand(2, 3, 64, 64)).shape == (2, 2)


def test_vit_weights_fit_their_own_size(tiny_vit):
    state = VisionTransformer(image_size=224, num_classes=1000, **TINY_VIT).state_dict()
    detector = Detector("vit", 224, "spectrum", state)
    assert torch.equal(detector.network.encoder.pos_embedding, state["encoder.pos_embedding"])
    assert detector.network.heads.head.weight.shape == (2, 32)


def test_weights_from_a_file(tmp_path):
    state = resnet50().state_dict()
    torch.save(state, tmp_path / "resnet.pth")
    loaded = pretrained_weights(str(tmp_path / "resnet.pth"), "https://example.org/resnet.pth", "--resnet_weights")
    detector = Detector("resnet50", 64, "image", loaded)
    assert torch.equal(detector.network.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    assert detector.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 2)


def test_weights_that_cannot_be_had_name_file_address_and_option(monkeypatch):
    def no_network(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match=r"checkpoints and .*https://example.org/vit.pth.*--vit_weights PATH"):
        pretrained_weights("imagenet", "https://example.org/vit.pth", "--vit_weights")
    assert pretrained_weights("none", "https://example.org/vit.pth", "--vit_weights") is None


@pytest.mark.parametrize("classifier", ["vit", "resnet50"])
def test_weights_of_another_network_are_refused(tiny_vit, classifier):
    other = {"vit": "resnet50", "resnet50": "vit"}[classifier]
    state = Detector(other, 64, detectors.DOMAINS[other][0]).network.state_dict()
    with pytest.raises(ValueError, match=f"weights are not of {classifier}"):
        Detector(classifier, 64, detectors.DOMAINS[classifier][0], state)


@pytest.mark.parametrize(
    "classifier, size, domain",
    [
        ("cnn", 34, "spectrum"),
        ("vit", 40, "image"),
        ("resnet50", 64, "spectrum"),
        ("cnn", 16, "image"),
        ("cnn", 32, "opponent"),
        ("cnn_whitened", 32, "image"),
    ],
)
def test_what_a_network_cannot_take_is_refused(classifier, size, domain):
    with pytest.raises(ValueError, match=f"{classifier} (takes|looks)"):
        Detector(classifier, size, domain)


# ---- classical detectors


@pytest.mark.parametrize("classifier", ["knn", "svm", "mlp"])
def test_scores_from_arrays_are_scikit_learns(classifier):
    real, fake = blobs(gap=0.8)
    state = fit_classical(classifier, real, fake, seed=1)
    features, labels = np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)])
    standardised = (features - features.mean(0)) / features.std(0)
    model = {
        "knn": KNeighborsClassifier(5),
        "svm": SVC(kernel="rbf"),
        "mlp": MLPClassifier((10, 10), activation="logistic", max_iter=2000, random_state=1),
    }[classifier].fit(standardised, labels)
    new = np.concatenate(blobs(25, gap=0.8, seed=9))
    got = classical_scores(classifier, state, new)
    np.testing.assert_array_equal(got > 0.5, model.predict((new - features.mean(0)) / features.std(0)) == 1)
    if classifier != "svm":
        np.testing.assert_allclose(got, model.predict_proba((new - features.mean(0)) / features.std(0))[:, 1], atol=1e-9)


@pytest.mark.parametrize("classifier", CLASSICAL)
def test_classical_detectors_survive_a_checkpoint_without_pickled_code(classifier, tmp_path):
    real, fake = blobs()
    state = fit_classical(classifier, real, fake, seed=0)
    save_checkpoint(tmp_path / "detector.pt", "detector", {"state": state})
    again = load_checkpoint(tmp_path / "detector.pt", "detector")["state"]
    scores = classical_scores(classifier, again, np.concatenate([real, fake]))
    np.testing.assert_array_equal(scores, classical_scores(classifier, state, np.concatenate([real, fake])))
    assert np.mean(scores[:40] > 0.5) < 0.1 and np.mean(scores[40:] > 0.5) > 0.9
    with pytest.raises(ValueError, match="fitted on 3 features, not on 2"):
        classical_scores(classifier, again, real[:, :2])


@pytest.mark.parametrize("classifier", CLASSICAL)
def test_unequal_classes_are_balanced_and_constant_columns_harmless(classifier):
    def with_constant(sides):
        return [np.column_stack([side, np.ones(len(side))]) for side in sides]

    real, fake = with_constant(blobs(200, gap=0.5))
    state = fit_classical(classifier, real, fake[:20], seed=0)
    scores = classical_scores(classifier, state, np.concatenate(with_constant(blobs(200, gap=0.5, seed=5))))
    assert 0.3 < np.mean(scores > 0.5) < 0.75  # an unbalanced fit calls nearly everything real


def test_the_larger_class_is_thinned_out_at_random():
    """The first images may be of one scene, or of one camera."""
    kept = []
    for seed in range(3):
        state = fit_classical("knn", np.zeros((5, 1)), 1.0 + np.arange(90)[:, None], seed)
        fakes = state["features"][state["labels"] == 1] * state["std"] + state["mean"]
        kept.append(tuple(fakes.flatten().round().tolist()))
    assert len(set(kept)) == 3
    assert all(len(numbers) == 5 and sorted(set(numbers)) == [*numbers] for numbers in kept)


def test_too_few_images_are_refused():
    real, fake = blobs(4)
    with pytest.raises(ValueError, match="at least 5 training images"):
        fit_classical("knn", real, fake, seed=0)


def test_coherence_finds_upsampled_images():
    def features(count, seed, is_fake):
        image = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        return alias_features(image[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3) if is_fake else image)

    state = fit_classical("coherence", features(20, 0, False), features(20, 1, True), seed=0)
    scores = [classical_scores("coherence", state, features(40, seed, seed == 3)) for seed in (2, 3)]
    assert np.mean(scores[0] > 0.5) < 0.1 and np.mean(scores[1] > 0.5) > 0.9


def test_features_by_classifier():
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(classical_features("svm", image), decay_features(image))
    assert torch.equal(classical_features("logreg", image), log_profile(image))
    assert classical_features("logreg", image, corners=True).shape[1] > 33
    assert torch.equal(classical_features("coherence", image), alias_features(image))
    assert torch.equal(classical_features("coherence8", image), alias_features(image, 8))


def test_saved_labels_of_knn_say_fake_by_one():
    real, fake = blobs(6)
    labels = fit_classical("knn", real, fake, seed=0)["labels"]
    assert labels.dtype == torch.float64 and labels.tolist() == [0.0] * 6 + [1.0] * 6


# ---- perturbations


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations_keep_shape_range_and_repeat(name):
    image = (torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    changed = PERTURBATIONS[name](image, 7)
    assert changed.shape == image.shape and changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(changed, PERTURBATIONS[name](image, 7))
    assert torch.equal(changed, image) == (name == "none")
    torch.testing.assert_close(changed * 255, (changed * 255).round(), atol=1e-3, rtol=0)


def test_stronger_perturbations_change_more():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert (jpeg(image, 75) - image).abs().mean() > (jpeg(image, 95) - image).abs().mean()
    assert (resize(image, 0.5) - image).abs().mean() > (resize(image, 0.75) - image).abs().mean()


def test_augmentation_crops_and_is_repeatable():
    image = torch.rand(3, 40, 48)
    once, again = (augment(image, np.random.default_rng(3), 1.0, 32) for _ in range(2))
    assert once.shape == (3, 32, 32) and torch.equal(once, again)
    assert augment(image, np.random.default_rng(0), 0.5, 224).shape == (3, 40, 40)


# ---- training


def plan(**changes):
    values = {
        "epochs": 4,
        "batch_size": 8,
        "lr": 0.05,
        "optimizer": "sgd",
        "patience": 0,
        "augment": None,
        "seed": 0,
        "num_workers": 0,
    }
    return TrainingPlan(**(values | changes))


def tiny_problem(count=12):
    """Reals are dark, fakes bright."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 32, 32, generator=generator) * 0.5, torch.rand(count, 3, 32, 32, generator=generator) * 0.5 + 0.5


def train_tiny(folder, **changes):
    real, fake = tiny_problem()
    torch.manual_seed(0)
    network = Detector("cnn", 32, "image")
    train = LabelledImages(real, range(8), fake, range(8), plan(**changes))
    validation = LabelledImages(real, range(8, 12), fake, range(8, 12))
    best = train_network(network, train, validation, plan(**changes), folder, ALONE)
    return network, best, validation


def test_a_network_that_is_not_finite_replaces_no_good_one(tmp_path, monkeypatch):
    """Normalisation may hide it from the loss."""

    def spoil(network, images, *_):
        next(network.parameters()).data.fill_(torch.inf if images.epoch else 1.0)
        return 0.5

    monkeypatch.setattr(training, "_train_epoch", spoil)
    monkeypatch.setattr(training, "validate", lambda *_: (0.5, 0.5))
    with pytest.raises(UserError, match=r"network.* of the checkpoint is not finite at epoch 2; try a lower --lr"):
        train_tiny(tmp_path, epochs=2)
    assert load_checkpoint(tmp_path / "last.pt", "detector-training")["epoch"] == 0


def test_a_training_goes_on_to_no_fewer_epochs_than_it_has(tmp_path):
    train_tiny(tmp_path, epochs=2)
    with pytest.raises(UserError, match=r"has 2 epochs already; give --class_epoch that or more"):
        train_tiny(tmp_path, epochs=1)


def test_training_learns_and_scores_the_right_way_round(tmp_path):
    network, _, validation = train_tiny(tmp_path, epochs=15)
    assert validate(network, validation, 4, ALONE)[1] == 1.0
    real, fake = tiny_problem()
    scores = [fake_score(network_logits(network, images, "judging", 5, ALONE)) for images in (real, fake)]
    assert scores[0].max() < 0.5 < scores[1].min()
    assert (FAKE, REAL) == (0, 1)


@pytest.mark.parametrize("settings", [{}, {"epochs": 60, "lr": 2.0, "patience": 3}])  # at this rate it gets worse after its best
def test_resumed_training_is_uninterrupted_training(tmp_path, monkeypatch, settings):
    whole, best, _ = train_tiny(tmp_path / "whole", **settings)
    original = training._train_epoch

    def interrupted(network, images, *rest):
        if images.epoch == (best + 2 if settings else 2):
            raise KeyboardInterrupt
        return original(network, images, *rest)

    monkeypatch.setattr(training, "_train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "parts", **settings)
    monkeypatch.setattr(training, "_train_epoch", original)
    resumed, best_again, _ = train_tiny(tmp_path / "parts", **settings)
    assert best == best_again
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (tmp_path / "whole" / "log.csv").read_text() == (tmp_path / "parts" / "log.csv").read_text()


def test_threads_that_read_ahead_change_nothing(tmp_path):
    trained = [train_tiny(tmp_path / str(workers), num_workers=workers)[0].state_dict() for workers in (0, 2)]
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in trained), strict=True))


@pytest.mark.parametrize("count", [7, 9, 8])
def test_the_order_of_an_epoch_is_that_of_a_data_loader(count):
    generator = torch.Generator().manual_seed(3 * 10_007 + 5)
    loader = DataLoader(range(count), batch_size=4, shuffle=True, generator=generator, drop_last=count == 9)  # 4 + 4 + 1
    assert epoch_batches(count, plan(seed=3, batch_size=4), 5) == [part.tolist() for part in loader]


def test_the_best_epoch_is_kept_and_training_stops_early(tmp_path):
    network, best, validation = train_tiny(tmp_path, epochs=60, lr=2.0, patience=3)  # a rate at which it falls apart
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    losses = [float(row[2]) for row in rows]
    assert len(rows) == best + 4 < 60
    assert min(losses) == losses[best]
    assert validate(network, validation, 8, ALONE)[0] == pytest.approx(losses[best], rel=1e-6)
    assert train_tiny(tmp_path / "at rest", epochs=9, lr=0.0, patience=2)[1] == 0  # as good is no better
    assert len((tmp_path / "at rest/log.csv").read_text().splitlines()) == 1 + 3


def test_rate_schedule_is_the_papers(tmp_path, monkeypatch):
    rates = []
    original = training._train_epoch

    def spying(network, images, optimizer, *rest):
        rates.append(optimizer.param_groups[0]["lr"])
        return original(network, images, optimizer, *rest)

    monkeypatch.setattr(training, "_train_epoch", spying)
    train_tiny(tmp_path, epochs=3, lr=2e-4)
    assert rates == pytest.approx([2e-4, 2e-4 * 0.95, 2e-4 * 0.95**2])


def test_unequal_classes_weigh_alike():
    images = LabelledImages(torch.zeros(30, 3, 8, 8), range(30), torch.zeros(10, 3, 8, 8), range(10))
    assert images.class_weights.tolist() == pytest.approx([2.0, 40 / 60])
    assert len(images) == 40 and images[0][1] == REAL and images[39][1] == FAKE
    logits, label = torch.randn(8, 2), torch.tensor([REAL] * 7 + [FAKE])
    expected = torch.nn.functional.cross_entropy(logits, label, weight=images.class_weights)  # by the sum of the images' weights
    assert balanced_loss(logits, label, images.class_weights, ALONE).item() == pytest.approx(expected.item(), rel=1e-6)


def test_augmentation_changes_with_the_epoch_only(monkeypatch):
    monkeypatch.setattr(training, "CROP", 16)
    real, fake = tiny_problem(2)
    images = LabelledImages(real, range(2), fake, range(2), plan(augment=1.0))
    first, again = images[0][0], images[0][0]
    images.epoch = 1
    assert torch.equal(first, again) and not torch.equal(first, images[0][0])


def test_a_lonely_last_image_does_not_stop_batch_normalisation(tmp_path):
    real, fake = tiny_problem(6)
    network = Detector("resnet50", 32, "image")
    settings = plan(epochs=1, batch_size=4, optimizer="adam", lr=1e-4, augment=0.5)
    train = LabelledImages(real, range(5), fake, range(4), settings)  # 9 images: 4 + 4 + 1
    best = train_network(network, train, LabelledImages(real, [5], fake, [5]), settings, tmp_path, ALONE)
    assert best == 0 and all(value.isfinite().all() for value in network.state_dict().values())


def test_perturbations_are_what_their_names_say():
    image = (torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    array = (image * 255).round().byte().permute(1, 2, 0).numpy()
    for quality in (95, 85, 75):
        content = io.BytesIO()
        Image.fromarray(array).save(content, "JPEG", quality=quality, subsampling="4:2:0")
        expected = torch.from_numpy(np.array(Image.open(content))).permute(2, 0, 1) / 255
        assert torch.allclose(PERTURBATIONS[f"jpeg {quality}"](image, 0), expected, atol=1e-6)
    for factor, side in ((0.75, 36), (0.5, 24)):
        planes = [Image.fromarray(plane.numpy()).resize((side, side), Image.Resampling.BICUBIC) for plane in image]
        expected = np.stack([np.array(plane.resize((48, 48), Image.Resampling.BICUBIC)) for plane in planes]).clip(0, 1)
        assert np.abs(PERTURBATIONS[f"resize {factor}"](image, 0).numpy() - expected).max() < 0.51 / 255
    expected = ndimage.gaussian_filter(image.numpy(), (0, 1, 1), truncate=4, mode="mirror")
    assert np.abs(PERTURBATIONS["blur 1"](image, 0).numpy() - expected).max() < 0.51 / 255
    grey = torch.full((3, 48, 48), 0.5)
    first, second = (PERTURBATIONS["noise 0.02"](grey, index) for index in (0, 1))
    assert not torch.equal(first, second)  # each image its own
    assert [(each - grey).std().item() for each in (first, second)] == pytest.approx([0.02, 0.02], rel=0.05)


def test_augmentation_takes_any_place_and_side():
    """Without blur and JPEG: crops and mirrored crops of an image that says where each pixel was."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    image, generator = torch.stack([rows, columns, columns * 0]), np.random.default_rng(0)
    found = [augment(image, generator, 0.0, 4) for _ in range(300)]
    assert {int(each[0, 0, 0]) for each in found} == {0, 1, 2}
    assert {int(each[1].min()) for each in found} == {0, 1, 2, 3}
    assert 0.4 < np.mean([(each[1, 0, 0] > each[1, 0, 1]).item() for each in found]) < 0.6


def test_networks_choose_their_threshold_by_validation_images(monkeypatch):
    monkeypatch.setattr("detect_commands.judges.train_network", lambda *_: 0)
    judge, asked = NetworkJudge("cnn", 32, "image", None, ALONE, plan()), []
    monkeypatch.setattr(judge, "scores", lambda images, indices: asked.append(list(indices)) or np.linspace(0, 1, len(indices)))
    split = {
        "real": {"train": [0, 1], "validation": [2, 3], "test": [4]},
        "fake": {"train": [1, 2], "validation": [3], "test": [0]},
    }
    judge.fit(*(SimpleNamespace(images=side) for side in tiny_problem()), split)
    assert asked == [[2, 3], [3]]


def test_an_interrupted_fit_is_no_fit(monkeypatch):
    """scikit-learn's mlp catches KeyboardInterrupt, and would give the half-trained weights."""

    class Interrupted(MLPClassifier):
        def _fit_stochastic(self, *arguments, **how):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                return super()._fit_stochastic(*arguments, **how)

    features = np.random.default_rng(0).normal(size=(2, 20, 3))
    monkeypatch.setattr("models.classical_detectors.MLPClassifier", Interrupted)
    with handling(signal.default_int_handler, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        fit_classical("mlp", *features, seed=0)
    with StopRequest() as stop:
        fit_classical("mlp", *features, seed=0)
    assert stop.asked  # whoever has asked to be told is told


def test_the_fewest_images_leave_enough_in_every_fold():
    for count, enough in ((judges.FEWEST, True), (judges.FEWEST - 1, False)):
        folds, _ = fold_numbers([range(count)] * 2, judges.FOLDS, 0)
        assert (count - np.bincount(folds).max() >= judges.NEIGHBOURS) == enough


def test_classical_detectors_choose_their_threshold_by_images_they_never_saw(monkeypatch):
    """And are then trained on all that are not for testing."""
    trained_on = []

    def fit(_, real, fake, seed):
        trained_on.append({row.item() for row in (*real, *fake)})
        return trained_on[-1]

    monkeypatch.setattr(judges, "fit_classical", fit)
    monkeypatch.setattr(judges, "classical_scores", lambda _, seen, rows: np.array([float(row.item() in seen) for row in rows]))
    monkeypatch.setattr(judges, "best_threshold", lambda *scores: scores)
    sides = [
        SimpleNamespace(
            folder=name,
            images=SimpleNamespace(paths=ImagePaths(name, [f"{name}{number}.png" for number in range(20)])),
            features=lambda extract, key, indices, perturbation, first=first: first + np.array(indices, float)[:, None],
        )
        for name, first in (("real", 0), ("fake", 100))
    ]
    judge = judges.ClassicalJudge("knn", 32, False)
    judge.fit(*sides, {side: {"train": range(8), "validation": range(8, 14), "test": range(14, 20)} for side in ("real", "fake")})
    assert len(judge.threshold) == 2 and not any(scores.any() for scores in judge.threshold)
    assert trained_on[-1] == {*range(14), *range(100, 114)}


def test_each_run_has_a_seed_of_its_own(tmp_path):
    for classifier in ("logreg", "cnn"):
        options = parse_detect(["--classifier", classifier, "--dst", "x", "--seed", "5"]).of(classifier)
        bench = Bench(classifier, 32, options, ALONE)
        made = [bench.new_judge(run, tmp_path) for run in (0, 1)]
        assert [judge.plan.seed if classifier == "cnn" else judge.seed for judge in made] == [5, 6]
    first, second = (next(judge.network.parameters()) for judge in made)
    assert not torch.equal(first, second)


def test_augmentation_differs_between_images(monkeypatch):
    monkeypatch.setattr(training, "CROP", 16)
    same = torch.rand(1, 3, 24, 24).expand(2, -1, -1, -1)
    images = LabelledImages(same, range(2), same, range(2), plan(augment=1.0))
    assert not any(torch.equal(images[0][0], images[number][0]) for number in (1, 2, 3))


def test_validation_counts_both_classes_alike():
    logits = torch.tensor([0.0, 1.0])
    network = torch.nn.Identity()
    network.forward = lambda image: logits.expand(len(image), 2)
    images = LabelledImages(torch.zeros(9, 3, 8, 8), range(9), torch.zeros(3, 3, 8, 8), range(3))
    loss, accuracy = validate(network, images, 4, ALONE)
    assert accuracy == 0.5 and loss == pytest.approx(-logits.log_softmax(0).mean().item())
