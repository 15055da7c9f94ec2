"""Networks, terms and checkpoints against numbers measured on the authors' code."""

import numpy as np
import pytest
import torch
from golden_recipe import ARRAYS, NUMBERS, RELEASED_ORDER, golden_image, golden_weights

from models.losses import adversarial_loss, low_frequency_loss, ssim
from models.nested_unet import NestedUNet
from models.patchnce import PatchHeads, patch_nce
from models.refiners import released_model
from models.stig import STIG, Objective, to_unit_range
from models.training import Trainer
from options import PRESETS
from utils.fft import image_to_mag, mag_to_image
from utils.released import released_generator as read_released

ROLL = list(RELEASED_ORDER)
ADVERSARIAL = ("g_patch", "loss_G_GAN"), ("g_spectral", "loss_SG_GAN")
OTHERS = ("identity", "loss_identity"), ("fake_identity", "loss_fake_identity"), ("low_frequency", "loss_LF")


def samples(tensor, name):
    golden = NUMBERS[name]
    return tensor.flatten()[golden["samples_at"]].tolist(), pytest.approx(golden["samples"], rel=1e-4, abs=1e-4)


def released_generator():
    generator = NestedUNet("direct", "batch", "bicubic")
    problems = generator.load_state_dict(golden_weights("generator"), strict=False)
    assert not problems.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in problems.missing_keys)
    return generator


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The golden generator as a user's released checkpoint would be."""
    file = tmp_path_factory.mktemp("released") / "Generator.pt"
    torch.save(golden_weights("generator"), file)
    return file


@pytest.fixture(scope="module")
def released_stig(released):
    """The released objective with the golden weights; channels are in the image's order, as of `released_generator`."""
    objective = Objective(image_range="stretch", inverse="abs", rolled_real_profile=True, nce_levels=(0,))
    model = STIG(64, objective, "direct", "batch", "bicubic")
    model.generator.load_state_dict(read_released(released), strict=False)
    first, back = "stage_1.block.0.weight", [ROLL.index(channel) for channel in range(3)]
    weights = golden_weights("discriminator")
    model.discriminator.load_state_dict(weights | {first: weights[first][:, back]})
    model.heads.load_state_dict(golden_weights("mlp"))
    model.spectral_discriminator.load_state_dict(golden_weights("spectral_discriminator"))
    return model


def test_parameter_counts():
    model = STIG(256)
    counts = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("generator", "discriminator")}
    assert counts["generator"] == 24_830_211  # 24.83 M
    assert counts["discriminator"] == pytest.approx(1.56e6, rel=0.01)


def test_generator_in_train_and_eval_mode():
    generator = released_generator()
    mag = image_to_mag(torch.cat([golden_image(1), golden_image(2)]))[0][:, ROLL]
    found, golden = samples(mag[:1], "reference_real_A")
    assert found == golden
    with torch.no_grad():
        # When the eval-mode numbers were taken, the recipe's running statistics had seen the two encoder passes of the
        # contrastive numbers: the output's, then the input's.
        generator.train()
        generator.encode(ARRAYS["fake_B_train"])
        generator.encode(mag[:1])
        evaluated = generator.eval()(mag[:1])
        trained = generator.train()(mag)
    found, golden = samples(evaluated, "generator_eval_mode_output")
    assert found == golden
    assert torch.allclose(trained[:1], ARRAYS["fake_B_train"], atol=1e-4)
    found, golden = samples(trained[1:], "idt_B_train")
    assert found == golden


def test_refined_image():
    _, phase, mag_range = image_to_mag(golden_image(1))
    refined_mag = ARRAYS["fake_B_train"][:, [ROLL.index(channel) for channel in range(3)]]
    refined_image = mag_to_image(refined_mag, phase, mag_range, "abs")
    assert torch.allclose(refined_image, ARRAYS["refined_image_train"], atol=4e-4)  # of a maximum of 3.9


def test_a_released_checkpoint_refines_as_the_released_code(released):
    objective = released_model(read_released(released), 64, PRESETS["released"]).objective
    assert (objective.image_range, objective.inverse, objective.compensate_rounding) == ("stretch", "abs", False)


def test_objective_with_released_checkpoint(released_stig):
    model = released_stig.train()
    t = model.translate(golden_image(1), golden_image(2))
    found, golden = samples(to_unit_range(t.refined_image, "stretch"), "refined_image_train_normalized")
    assert found == golden
    assert t.refined_profile[0].tolist() == pytest.approx(NUMBERS["denoised_psd"], abs=1e-4)
    with torch.no_grad():
        found, golden = samples(model.discriminator(t.refined_mag), "D_fake_map")
        assert found == golden
        assert model.spectral_discriminator(t.refined_profile).item() == pytest.approx(NUMBERS["S_fake"], rel=1e-4)
        d, g = model.discriminator_loss(t), model.generator_loss(t)
    assert d["d_patch"].item() == pytest.approx(NUMBERS["loss_D"]["loss_D"], rel=1e-4)
    assert d["d_spectral"].item() == pytest.approx(NUMBERS["loss_D"]["loss_SD"], rel=1e-4)
    assert d["total"].item() == pytest.approx(NUMBERS["loss_D"]["total"], rel=1e-4)
    for ours, theirs in ADVERSARIAL + OTHERS:
        assert g[ours].item() == pytest.approx(NUMBERS["loss_G"][theirs], rel=1e-4), ours
    # The released run's positions are not recorded: its contrastive terms agree up to the choice of positions.
    assert 2 * g["nce_fake"].item() == pytest.approx(NUMBERS["loss_G"]["loss_NCE"], rel=2e-2)
    assert g["total"].item() == pytest.approx(NUMBERS["loss_G"]["total"], rel=2e-2)


def test_contrastive_cross_entropy_of_every_level(released_stig):
    generator, heads = released_generator().train(), PatchHeads()
    heads.load_state_dict(golden_weights("mlp"))
    source = image_to_mag(golden_image(1))[0][:, ROLL]
    draw, found = np.random.default_rng(7), []
    with torch.no_grad():
        keys, queries = generator.encode(source), generator.encode(ARRAYS["fake_B_train"])
        for level, (key, query) in enumerate(zip(keys, queries, strict=True)):
            positions = torch.from_numpy(draw.permutation(key.shape[-1] * key.shape[-2])[:256])
            found.append(patch_nce(heads(query, positions, level), heads(key, positions, level), 0.07).item())
    assert found == pytest.approx(NUMBERS["nce_per_layer_mean_cross_entropy"], rel=1e-4)


def test_similarity_and_low_frequency_terms():
    fake, real = golden_image(1), golden_image(2)
    assert ssim(fake, real).item() == pytest.approx(NUMBERS["ssim_window35_fake_real"], rel=1e-4)
    refined_mag = ARRAYS["fake_B_train"]
    found = low_frequency_loss(refined_mag, image_to_mag(fake)[0][:, ROLL], 8).item()
    assert found == pytest.approx(NUMBERS["lf_loss_sigma8"], rel=1e-4)
    spectral = torch.tensor([NUMBERS["S_fake"]])
    assert adversarial_loss(spectral, False).item() == pytest.approx(NUMBERS["loss_D"]["loss_SD_fake"], rel=1e-4)


def test_total_is_the_weighted_sum(released_stig):
    with torch.no_grad():
        g = released_stig.generator_loss(released_stig.translate(golden_image(1), golden_image(2)))
    weights = {"g_patch": 3, "g_spectral": 3, "nce_fake": 20, "nce_real": 20, "identity": 3, "fake_identity": 1, "low_frequency": 3}
    assert g["total"].item() == pytest.approx(sum(weight * g[name].item() for name, weight in weights.items()), rel=1e-6)


def test_training_step_moves_every_network(released_stig):
    model = STIG(64, released_stig.objective, "direct", "batch", "bicubic")
    trainer = Trainer(model, 1e-3, total_steps=10, ema=0.9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train_step(golden_image(1), golden_image(2))
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    # only the heads of unused levels stay; a bias ahead of a batch norm has a gradient of rounding size
    assert all(name.startswith("heads.mlp_") and not name.startswith("heads.mlp_0") for name in still)
