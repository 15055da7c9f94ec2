"""GAN steps, the monitor and the pieces of the sub-commands, without any command line."""

import copy
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gan_commands import detection as detection_module
from gan_commands import monitor as monitor_module
from gan_commands.common import MONITOR, SAMPLE, draw, draw_batches, images_of, sampling_generator
from gan_commands.detection import SplitDetector
from gan_commands.figures import moving
from gan_commands.finetune import SampleJudge, default_threshold, finetune_step, start_trainer
from gan_commands.invert import invert_batch
from gan_commands.monitor import GanMonitor, choose_monitor
from models.classical_detectors import fit_classical
from models.gan import Generator, from_image, generate, seeded_latents
from models.gan_losses import discriminator_loss, fourier_dissimilarity, generator_loss, gradient_penalty, spectral_loss
from models.gan_training import GanConfig, GanTrainer, restore_generator
from utils.distributed import Processes
from utils.errors import UserError
from utils.metrics import SpectrumFolds, first_half, lfd

CPU = torch.device("cpu")
ALONE = Processes(CPU)
TINY = {"size": 16, "dim": 4, "latent_dim": 6}


def reals(count=8, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_latents_depend_on_their_index_alone():
    together = seeded_latents(range(5), 4, seed=3)
    assert torch.equal(seeded_latents([3], 4, seed=3)[0], together[3])
    assert not torch.equal(seeded_latents([3], 4, seed=4)[0], together[3])
    assert not torch.equal(seeded_latents([3], 4, seed=3, stream=1)[0], together[3])
    many = seeded_latents(range(2000), 4, seed=0)
    assert many.mean().abs() < 0.05 and abs(many.std() - 1) < 0.05


def test_finetuning_starts_from_the_average_where_there_is_one():
    """Latents were found for it, and samples are drawn from it."""
    for ema in (0.0, 0.9):
        trained = GanTrainer(GanConfig(**TINY, ema=ema), 1e-2, ALONE)
        trained.step(reals())
        started = start_trainer(trained.state_dict(), 1e-4, ALONE)
        assert all(map(torch.equal, started.generator.state_dict().values(), trained.sampler.state_dict().values()))
        assert started.average is None  # what is trained is drawn from


def test_a_detector_that_calls_a_quarter_of_the_reals_fake_is_right_about_the_others(monkeypatch):
    detector = SimpleNamespace(called_fake=lambda _: 0.25, unseen_real=None)
    monkeypatch.setattr("gan_commands.finetune.SplitDetector", lambda *_: detector)
    checkpoint = GanTrainer(GanConfig(**TINY), 1e-2, ALONE).state_dict()
    assert SampleJudge("logreg", reals(), checkpoint, 4, 0, CPU).real_right == 0.75


def test_generate_keeps_mode_and_statistics():
    generator = Generator(16, "BASELINE", dim=4, latent_dim=4)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    image = generate(generator, seeded_latents(range(3), 4, 0))
    assert image.min() >= 0 and image.max() <= 1
    assert generator.training
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {"adversarial": "gan"},
        {"adversarial": "lsgan", "setup": "Z.1.3", "spectral_loss": 0.5},
        {"adversarial": "wgan-gp", "penalty": "zero", "critic_steps": 2, "ema": 0.9},
    ],
)
def test_state_makes_training_repeatable(settings):
    def trained(stop=None):
        torch.manual_seed(0)
        trainer = GanTrainer(GanConfig(**TINY, **settings), 1e-3, ALONE)
        for step in range(4):
            if step == stop:
                state, random = trainer.state_dict(), torch.get_rng_state()
                state = torch.load(saved(state), weights_only=True)
                torch.manual_seed(99)
                trainer = GanTrainer(GanConfig(**state["config"]), 1.0, ALONE)
                trainer.load_state_dict(state)
                torch.set_rng_state(random)
            trainer.step(reals(seed=step))
        return trainer

    def saved(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        return buffer

    straight, resumed = trained().state_dict(), trained(stop=2).state_dict()
    for name in ("generator", "discriminator"):
        assert all(torch.equal(value, resumed[name][key]) for key, value in straight[name].items())
    if settings.get("ema"):
        assert all(map(torch.equal, straight["average"].values(), resumed["average"].values()))
    assert straight["steps"] == resumed["steps"] == 4


@pytest.mark.parametrize(
    "settings",
    [{"spectral_loss": 0.5, "ema": 0.9}, {"adversarial": "wgan-gp", "penalty": "zero"}],
    ids=["spectral loss and average", "penalty"],
)
def test_a_step_is_the_published_one(settings):
    config, image = GanConfig(**TINY, **settings), reals()
    trainer = GanTrainer(config, 1e-3, ALONE)
    generator, critic = copy.deepcopy(trainer.generator), copy.deepcopy(trainer.discriminator)
    adam, critic_adam = (torch.optim.Adam(network.parameters(), 1e-3, (0.5, 0.999)) for network in (generator, critic))
    early = 2 / 11  # decay of the first step, in which little is left of what a generator begins with
    average = [early * weight.detach() for weight in generator.parameters()]
    random = torch.get_rng_state()
    terms = trainer.step(image)
    torch.set_rng_state(random)
    fake, real = generator(torch.randn(8, 6)).detach(), 2 * image - 1
    expected = {"discriminator": discriminator_loss(config.adversarial, critic(real), critic(fake))}
    if config.penalty != "none":
        expected["penalty"] = gradient_penalty(critic, real, fake, "zero")
    (expected["discriminator"] + 10 * expected.get("penalty", 0)).backward()
    critic_adam.step()
    fake = generator(torch.randn(8, 6))
    expected["generator"] = generator_loss(config.adversarial, critic(fake))
    if config.spectral_loss:
        expected["spectral"] = spectral_loss((fake + 1) / 2, image)
    (expected["generator"] + 0.5 * expected.get("spectral", 0)).backward()
    adam.step()
    torch.testing.assert_close(terms, expected)
    assert trainer.generator_optimiser.defaults["betas"] == trainer.discriminator_optimiser.defaults["betas"] == (0.5, 0.999)
    for mine, theirs in ((trainer.generator, generator), (trainer.discriminator, critic)):
        torch.testing.assert_close(mine.state_dict(), theirs.state_dict())
    if config.ema:
        moved = [old + (1 - early) * weight for old, weight in zip(average, generator.parameters(), strict=True)]
        torch.testing.assert_close([*trainer.average.parameters()], moved)


@pytest.mark.parametrize("adv", [0.0, 0.3])
def test_a_finetuning_step_weighs_each_term_once(adv):
    trainer = GanTrainer(GanConfig(**TINY, adversarial="lsgan"), 1e-3, ALONE)
    generator, critic = copy.deepcopy(trainer.generator), copy.deepcopy(trainer.discriminator)
    adam, critic_adam = (torch.optim.Adam(network.parameters(), 1e-3, (0.5, 0.999)) for network in (generator, critic))
    image, latent = reals(), torch.randn(8, 6)
    trainer.processes.begin(8)
    options = SimpleNamespace(metric="2", lambda_fourier=3.0, adv=adv)
    terms = finetune_step(trainer, image, latent, options, 2)
    fake = generator(latent)
    expected = {"dissimilarity": fourier_dissimilarity((fake + 1) / 2, image, "2", 2)}
    if adv:
        discriminator_loss("lsgan", critic(2 * image - 1), critic(fake.detach())).backward()
        critic_adam.step()
        expected["adversarial"] = generator_loss("lsgan", critic(fake))
    (3 * expected["dissimilarity"] + adv * expected.get("adversarial", 0)).backward()
    adam.step()
    torch.testing.assert_close(terms, expected)
    for mine, theirs in ((trainer.generator, generator), (trainer.discriminator, critic)):
        torch.testing.assert_close(mine.state_dict(), theirs.state_dict())


def test_only_a_discriminator_without_penalty_mixes_the_batch():
    for penalty, mixes in (("none", True), ("zero", False)):
        parts = GanConfig(**TINY, penalty=penalty).discriminator().modules()
        assert any(isinstance(part, torch.nn.BatchNorm2d) for part in parts) == mixes


def test_generator_moves_only_with_every_critic_step():
    torch.manual_seed(0)
    trainer = GanTrainer(GanConfig(**TINY, adversarial="wgan-gp", penalty="zero", critic_steps=3), 1e-3, ALONE)
    weight = trainer.generator.last.weight.detach().clone()
    assert set(trainer.step(reals())) == {"discriminator", "penalty"}
    trainer.step(reals())
    assert torch.equal(trainer.generator.last.weight, weight)
    assert set(trainer.step(reals())) == {"discriminator", "penalty", "generator"}
    assert not torch.equal(trainer.generator.last.weight, weight)


def test_average_is_what_is_drawn():
    torch.manual_seed(0)
    trainer = GanTrainer(GanConfig(**TINY, ema=0.5), 1e-2, ALONE)
    trainer.step(reals())
    restored = restore_generator(trainer.state_dict())
    assert torch.equal(restored.last.weight, trainer.average.last.weight)
    assert not torch.equal(restored.last.weight, trainer.generator.last.weight)
    assert not restored.training


def test_drawn_images_are_those_of_any_other_start():
    torch.manual_seed(0)
    state = GanTrainer(GanConfig(**TINY), 1e-3, ALONE).state_dict()
    whole = torch.cat(list(draw(state, 70, 5, CPU)))
    assert whole.shape == (70, 3, 16, 16) and whole.dtype == torch.float32
    assert torch.equal(whole, (whole * 255).round() / 255)
    assert torch.equal(
        torch.cat([image for _, image in draw_batches(sampling_generator(state, CPU), range(60, 70), 5, SAMPLE)]).float(),
        whole[60:],
    )


def test_inversion_finds_images_of_the_generator_whatever_the_batch():
    torch.manual_seed(0)
    generator = Generator(16, "BASELINE", dim=4, latent_dim=4).eval().requires_grad_(False)
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(1e-3)  # an untrained network draws nothing but grey
    target = generate(generator, seeded_latents(range(3), 4, 0))
    start = seeded_latents(range(3), 4, 1)
    shown = []
    latent, loss = invert_batch(generator, target, start, 60, 0.1, shown.append)
    assert shown[-1] < shown[0] / 2
    assert loss.shape == (3,) and latent.shape == (3, 4)
    assert torch.allclose(
        loss, (from_image(generate(generator, latent)) - from_image(target)).square().flatten(1).mean(1), rtol=1e-4
    )
    alone, alone_loss = invert_batch(generator, target[1:2], start[1:2], 60, 0.1, shown.append)
    assert torch.allclose(alone[0], latent[1], atol=1e-3)
    assert alone_loss[0].item() == pytest.approx(loss[1].item(), rel=1e-2, abs=1e-5)


def test_inversion_is_adam_on_each_images_mean_square():
    generator = Generator(16, "BASELINE", dim=4, latent_dim=4).eval().requires_grad_(False)
    image, latent = reals(2), seeded_latents(range(2), 4, 0).float()
    found, loss = invert_batch(generator, image, latent, 3, 0.1, lambda _: None)
    by_hand = latent.clone().requires_grad_(True)  # from where the caller's still are
    adam = torch.optim.Adam([by_hand], 0.1)
    for _ in range(3):
        adam.zero_grad()
        (generator(by_hand) - (2 * image - 1)).square().mean((1, 2, 3)).sum().backward()
        adam.step()
    expected = (generator(by_hand) - (2 * image - 1)).square().mean((1, 2, 3))
    torch.testing.assert_close((found, loss), (by_hand.detach(), expected.detach()))


def test_monitor_prefers_the_right_spectrum():
    photographs = reals(16).cumsum(-1) / 16
    monitor = GanMonitor("lfd", None, [photographs[:8], photographs[8:]], 16, 0, ALONE)
    assert monitor.real.total.count == 16
    assert monitor.distance(monitor.summary([photographs])) == pytest.approx(0, abs=1e-6)
    assert monitor.distance(monitor.summary([reals(16, 5)])) > 1
    few = GanMonitor("lfd", None, iter([photographs[:8], photographs[8:]]), 10, 0, ALONE)
    assert few.real.total.count == 10
    generator = Generator(16, "BASELINE", dim=4, latent_dim=4)
    state = torch.get_rng_state()
    score = few.score(generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert few.score(generator) == score
    assert generator.training
    samples = few.summary(image for _, image in draw_batches(generator, range(10), 0, MONITOR))
    assert score == few.distance(samples) == lfd(few.real.total, samples.total, bits=None)


def test_the_generators_steps_leave_the_discriminator_without_gradients(monkeypatch):
    trainer = GanTrainer(GanConfig(**TINY), 1e-3, ALONE)
    options = SimpleNamespace(metric="cos", lambda_fourier=1.0, adv=1)
    monkeypatch.setattr(trainer, "discriminator_step", lambda *_: {})
    before = [weight.clone() for weight in trainer.generator.parameters()]
    trainer.processes.begin(4)
    trainer.generator_step(from_image(reals(4)))
    finetune_step(trainer, reals(4), torch.randn(4, 6), options, 2)
    assert not any(torch.equal(*pair) for pair in zip(before, trainer.generator.parameters(), strict=True))
    assert all(weight.grad is None and weight.requires_grad for weight in trainer.discriminator.parameters())


def test_floor_of_the_monitor():
    photographs = reals(16).cumsum(-1) / 16
    monitor = GanMonitor("lfd", None, [photographs[:8], photographs[8:]], 16, 0, ALONE)
    folds = SpectrumFolds()
    folds.update(photographs)
    assert monitor.floor() == pytest.approx(folds.floor()["lfd"])
    assert GanMonitor("lfd", None, [photographs[:4]], 16, 0, ALONE).floor() > 0
    assert GanMonitor("lfd", None, [photographs[:3]], 16, 0, ALONE).floor() is None


@pytest.mark.parametrize("kind", ["fid", "kid"])
def test_monitor_with_features(kind, monkeypatch):
    monkeypatch.setattr(monitor_module, "load_inception", lambda path, device: None)
    monkeypatch.setattr(monitor_module, "inception_features", lambda network, image: image.flatten(1)[:, :5].numpy())
    monitor = GanMonitor(kind, "weights", [reals(64)], 64, 0, ALONE)
    same, shifted = (monitor.distance(monitor.summary([reals(64, seed) + shift])) for seed, shift in ((1, 0), (1, 3)))
    assert shifted > 10 * abs(same)
    is_first = torch.from_numpy(first_half(64))
    halves = [reals(64)[is_first], reals(64)[~is_first]]
    other = GanMonitor(kind, "weights", [halves[0]], 64, 0, ALONE)
    assert monitor.floor() == pytest.approx(other.distance(other.summary([halves[1]])))
    assert GanMonitor(kind, "weights", [reals(3)], 64, 0, ALONE).floor() is None
    if kind == "fid":
        assert monitor.distance(monitor.summary([reals(64) + 3])) == pytest.approx(5 * 9, rel=1e-4)


def test_choice_of_monitor(monkeypatch, capsys, tmp_path):
    assert choose_monitor("lfd", None) == ("lfd", None)

    def missing(path):
        raise UserError("no weights")

    monkeypatch.setattr(monitor_module, "find_weights", missing)
    assert choose_monitor(None, None) == ("lfd", None)
    assert "weights are missing" in capsys.readouterr().err
    for kind, weights in (("fid", None), ("kid", None), (None, "somewhere.pth")):
        with pytest.raises(UserError, match="no weights"):
            choose_monitor(kind, weights)
    monkeypatch.setattr(monitor_module, "find_weights", lambda path: "here.pth")
    assert choose_monitor(None, None) == ("fid", "here.pth")


def test_detector_is_judged_on_rows_it_never_saw(monkeypatch):
    fitted = []

    def noted(classifier, *rows_and_seed):
        fitted.append(rows_and_seed)
        return fit_classical(classifier, *rows_and_seed)

    monkeypatch.setattr(detection_module, "fit_classical", noted)
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 1, (60, 3)), rng.normal(4, 1, (40, 3))
    detector = SplitDetector("svm", real, fake, 0.25, seed=1)
    assert (len(detector.unseen_real), len(detector.unseen_fake)) == (45, 30)
    assert detector.called_fake(detector.unseen_fake) > 0.9
    assert detector.called_fake(detector.unseen_real) < 0.1
    seen_real, seen_fake, seed = fitted[0]
    for seen, unseen, table in ((seen_real, detector.unseen_real, real), (seen_fake, detector.unseen_fake, fake)):
        assert sorted(map(tuple, np.concatenate([seen, unseen]))) == sorted(map(tuple, table))
    assert seed == 1
    assert not np.array_equal(SplitDetector("svm", real, fake, 0.25, seed=2).unseen_real, detector.unseen_real)


def test_small_helpers():
    assert [default_threshold(size) for size in (32, 128, 256)] == [2, 10, 20]
    mean, std = moving([0, 3, 6, 9], 3)
    assert mean.tolist() == [1.5, 3, 6, 7.5]
    assert std[0] == 1.5
    chosen = images_of(range(10), 4, seed=0)
    assert len(set(chosen)) == 4 and chosen == sorted(chosen) and images_of(range(3), 9, 0) == [0, 1, 2]


def test_samples_are_computed_in_double_precision():
    """Single precision would let the 8-bit images depend on batch size and device."""
    state = GanTrainer(GanConfig(**TINY), 1e-3, ALONE).state_dict()
    assert {value.dtype for value in sampling_generator(state, CPU).parameters()} == {torch.float64}


def test_average_forgets_what_a_short_training_began_with():
    """With the decay of 0.999 from the first step on, 98 % of it would be left after 20."""
    trainer = GanTrainer(GanConfig(**TINY, ema=0.999, critic_steps=2), 1e-3, ALONE)
    for weights, value in ((trainer.average, 1.0), (trainer.generator, 0.0)):
        for weight in weights.parameters():
            weight.data.fill_(value)
    trainer.generator_optimiser.param_groups[0]["lr"] = 0.0
    for _ in range(40):
        trainer.step(reals())
    left = [weight.max().item() for weight in trainer.average.parameters()]
    assert left == pytest.approx([math.prod((1 + n) / (10 + n) for n in range(1, 21))] * len(left), rel=1e-5) and left[0] < 1e-4
