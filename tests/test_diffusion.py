"""benchmarks.diffusion: fakes of a small diffusion model."""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import told

from benchmarks import diffusion
from benchmarks.diffusion import Training, draw, main, parse
from models.gan import from_image
from utils.checkpoint import digest_of, load_checkpoint
from utils.errors import UserError
from utils.pictures import to_8bit

SMALL = "--data photos --size 16 --batch_size 4 --width 8 --draw_steps 2 --device cpu --dst small_ddpm"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Two steps of drawing are enough here."""
    monkeypatch.setattr(diffusion, "NOISY", 400)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder tmp_path/photos of nine pictures; results go below tmp_path."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(9):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{index}.png")


def run(out, *more, dst="small_ddpm"):
    """What a run leaves: its checkpoint, and the pixels that it drew, (N, 16, 16, 3)."""
    main([*SMALL.split(), "--dst", dst, "--out", out, *more])
    pixels = [np.asarray(Image.open(path)) for path in sorted(Path(out).glob("*.png"))]
    return load_checkpoint(Path("results", dst, "ddpm.pt"), diffusion.KIND), np.stack(pixels)


def refusal(capsys, *arguments):
    """The sentence that a mistake gets."""
    return told(main, [*SMALL.split(), *arguments], capsys)


def test_a_training_that_goes_on_is_one_without_a_stop(photos, capsys):
    run("stopped", "--steps", "3", "--n", "1")
    went_on, images = run("went_on", "--steps", "5", "--n", "3")
    whole, expected = run("whole", "--steps", "5", "--n", "3", dst="other_ddpm")
    assert went_on["steps"] == whole["steps"] == 5 and "3 images of 5 steps in whole" in capsys.readouterr().out
    for part in ("network", "average"):
        assert digest_of(went_on[part]) == digest_of(whole[part])
    assert digest_of(whole["network"]) != digest_of(whole["average"])
    assert images.shape == (3, 16, 16, 3) and (images == expected).all() and (images[0] != images[1]).any()


def test_a_stopped_training_goes_on_from_the_last_checkpoint(photos, monkeypatch, capsys):
    monkeypatch.setattr(diffusion, "SAVED", 2)

    def fail(self, image, generator, step=Training.step):
        if self.steps == 3:
            raise KeyboardInterrupt
        return step(self, image, generator)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(Training, "step", fail)
        run("stopped", "--steps", "5", "--n", "1")
    assert stop.value.code == 130 and not Path("stopped").exists()
    assert "every file in results/small_ddpm is whole, and the same command goes on" in capsys.readouterr().err
    assert load_checkpoint("results/small_ddpm/ddpm.pt", diffusion.KIND)["steps"] == 2
    went_on, _ = run("went_on", "--steps", "5", "--n", "1")
    whole, _ = run("whole", "--steps", "5", "--n", "1", dst="other_ddpm")
    assert digest_of(went_on["network"]) == digest_of(whole["network"])


def test_what_does_not_fit_is_refused(photos, capsys):
    run("made", "--steps", "2", "--n", "1")
    for arguments, words in (
        (("--out", "made"), "made is there already"),
        (("--out", "new", "--steps", "1"), "has 2 steps already; give --steps 2 or more"),
        (("--out", "new", "--steps", "3", "--lr", "0.1"), "was trained with --lr 0.0004"),
        (("--out", "new", "--dst", "new", "--batch_size", "10"), "fewer than --batch_size 10"),
        (("--out", "new", "--width", "12"), "12 is no multiple of 8"),
        (("--out", "new", "--draw_steps", "1"), "1 would begin at level 0"),
    ):
        assert words in refusal(capsys, *arguments)
    assert not Path("new").exists()


def test_other_images_are_noticed_where_a_training_goes_on(photos, capsys):
    run("made", "--steps", "2", "--n", "1")
    Path("photos/0.png").write_bytes(Path("photos/1.png").read_bytes())
    assert "small_ddpm was trained on other images than are in photos now" in refusal(capsys, "--out", "new", "--steps", "3")
    for path in Path("photos").iterdir():
        path.unlink()
    run("drawn", "--steps", "2", "--n", "1")  # which needs none


@pytest.mark.parametrize(("steps", "fits"), [(50, True), (20, True), (334, False), (501, False), (1000, True)])
def test_drawing_begins_at_noise(monkeypatch, steps, fits):
    """At the level of which the library's scheduler begins."""
    scheduler = diffusion.load_diffusers().DDIMScheduler(diffusion.LEVELS)
    scheduler.set_timesteps(steps)
    monkeypatch.setattr(diffusion, "NOISY", int(scheduler.timesteps[0]))
    assert diffusion.draw_steps(str(steps)) == steps
    monkeypatch.setattr(diffusion, "NOISY", 900)
    if fits:
        assert diffusion.draw_steps(str(steps)) == steps
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            diffusion.draw_steps(str(steps))


def test_one_process_at_a_time_trains(photos, capsys, monkeypatch):
    monkeypatch.setattr("utils.run_dir.held_by_another", lambda folder: True)
    assert "another process is filling results/small_ddpm" in refusal(capsys, "--out", "new", "--steps", "3")


def test_weights_that_are_not_finite_replace_no_good_ones(tmp_path):
    training, path = Training(parse([*SMALL.split(), "--out", "new"]), torch.device("cpu")), tmp_path / "ddpm.pt"
    training.save(path)
    kept = path.read_bytes()
    next(training.network.parameters()).data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"network.* of the checkpoint is not finite at step 0; try a lower --lr"):
        training.save(path)
    assert path.read_bytes() == kept


def test_without_the_library_it_is_one_sentence(photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install diffusers" in refusal(capsys, "--out", "new")
    assert not Path("results").exists()


class Knowing(torch.nn.Module):
    """Knows the one image there is, so that the noise in whatever it is shown is what is left."""

    def __init__(self, image, levels):
        super().__init__()
        self.image, self.kept = image, levels.alphas_cumprod

    def forward(self, noisy, level):
        kept = self.kept[level].reshape(-1, 1, 1, 1)
        return types.SimpleNamespace(sample=(noisy - kept.sqrt() * self.image) / (1 - kept).sqrt())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_network_that_knows_the_image_draws_it(eta):
    image = to_8bit(torch.rand(3, 16, 16))
    training = Training(parse([*SMALL.split(), "--out", "new", "--eta", str(eta)]), torch.device("cpu"))
    training.average = Knowing(from_image(image), training.levels)
    drawn = draw(training, range(2))
    assert drawn.shape == (2, 3, 16, 16) and (drawn - image).abs().max() < 1e-6


def test_the_loss_is_that_of_the_predicted_noise():
    """It is zero where the network knows the image."""
    image = torch.rand(3, 16, 16)
    image = (image + image.flip(-1)) / 2  # the same when it is mirrored
    training = Training(parse([*SMALL.split(), "--out", "new"]), torch.device("cpu"))
    training.network = Knowing(torch.nn.Parameter(from_image(image)), training.levels)
    training.average = Knowing(torch.nn.Parameter(from_image(image)), training.levels)
    assert training.step(image.expand(64, -1, -1, -1), torch.Generator().manual_seed(0)) < 1e-6
    assert training.optimiser.param_groups[0]["lr"] == 4e-4 / diffusion.WARM_UP


def test_images_do_not_depend_on_how_many_are_drawn(monkeypatch):
    training = Training(parse([*SMALL.split(), "--out", "new", "--eta", "1"]), torch.device("cpu"))
    several = draw(training, range(3))
    assert (several[2] - draw(training, [2])[0]).abs().max() < 1.5 / 255
    streams, latents = [], diffusion.seeded_latents
    monkeypatch.setattr(diffusion, "seeded_latents", lambda *args: streams.append(args[3]) or latents(*args))
    draw(training, [2])
    assert streams == [0, 1, 2]  # each step has noise of its own
    training.options.eta = 0.0
    assert (several - draw(training, range(3))).abs().max() > 2 / 255
