"""The model as a whole: its start, its independence of the batch, what is trained and what is not."""

import copy
import dataclasses
import shutil

import pytest
import torch

from models import nested_unet
from models.nested_unet import NestedUNet, channels_of
from models.patchnce import PatchHeads, patch_nce
from models.stig import STIG, Objective, to_unit_range
from models.training import Trainer, rate_factor
from options import parse_train
from utils.fft import apply_gain, image_to_mag
from utils.filters import apply_filter, as_unseen, fit_filters
from utils.rounding import compensate_rounding
from utils.whitening import LEAST_DEVIATION, fit_whitening

SIZE, WIDTH = 32, 8


def images(count, seed=0, size=SIZE):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small(**settings):
    """`STIG` with the narrowest network: nothing here depends on the width."""
    return STIG(SIZE, width=WIDTH, **settings)


def small_generator(*settings, **more):
    return NestedUNet(*settings, channels=channels_of(WIDTH), **more)


def trained(**settings):
    torch.manual_seed(0)
    model = small(objective=Objective(nce_levels=(0, 2)), **settings)
    trainer = Trainer(model, 1e-3, total_steps=20, ema=0.5)
    for step in range(2):
        trainer.train_step(images(2, step), images(2, 10 + step))
    return model


@pytest.mark.parametrize("base", [None, 1.1 * torch.eye(3)[:, :, None, None].expand(3, 3, SIZE, SIZE)])
def test_residual_generator_starts_as_its_base(base):
    model = small(base={"gain": base})
    fake = images(2)
    expected = compensate_rounding(fake if base is None else apply_gain(fake, base)).clamp(0, 1)
    assert torch.allclose(model.refine(fake), expected, atol=1e-5)
    assert torch.allclose(model.refine(fake, is_real=True), fake, atol=1e-5)


def test_pictures_of_a_training_do_not_end_it():
    """Batch statistics, say, are those of batches again after a refined image."""
    model = small(norm="batch")
    model.refine(images(1))
    assert all(part.training for part in model.generator.modules())
    model.eval().refine(images(1))
    assert not any(part.training for part in model.generator.modules())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_networks_and_optimisers_begin_as_in_the_paper(norm):
    model = small(norm=norm)
    state = {name: value for name, value in model.generator.named_parameters() if not name.startswith("final")}
    for part, mean in (("conv1.weight", 0), ("bn1.weight", 1)):
        values = torch.cat([value.flatten() for name, value in state.items() if name.endswith(part)])
        assert values.mean().item() == pytest.approx(mean, abs=0.01) and values.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(value.any() for name, value in state.items() if name.endswith("bias"))
    optimisers = Trainer(model, 1e-3, total_steps=20, ema=0.5).optimisers.values()
    assert [optimiser.defaults["betas"] for optimiser in optimisers] == [(0.5, 0.999)] * 2


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_result_does_not_depend_on_the_batch(norm):
    model = trained(norm=norm, whitening=fit_whitening([images(4)]))
    fake = images(3, 5)
    together = model.refine(fake)
    assert (together - fake).abs().max() > 3e-4  # it does something, more than the tolerance below
    alone = torch.cat([model.refine(image[None]) for image in fake])
    assert (together - alone).abs().max() < 2e-6


def test_what_all_fakes_have_in_common_is_no_correction():
    """A pattern that the generator adds to every magnitude fades; what it adds to one image alone stays."""
    model = small(centre=True, whitening=fit_whitening([images(4)]))
    pattern = 0.1 * torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    decoded = model.generator.decode
    model.generator.decode = lambda features: decoded(features) + pattern
    fake, real = images(2), images(2, 1)
    first = model.translate(fake, real)
    assert (first.refined_mag - first.fake_mag).std() > 0.05 * model.whitening[1].mean()
    assert torch.allclose(model.generator.centre, nested_unet.CENTRE_RATE * pattern, atol=1e-7)
    for _ in range(600):
        model.generator.follow(pattern)
    last = model.translate(fake, real)
    for name in ("refined", "identity"):
        source = last.fake_mag if name == "refined" else last.real_mag
        assert (getattr(last, f"{name}_mag") - source).abs().max() < 0.01 * (getattr(first, f"{name}_mag") - source).abs().max()
    assert torch.allclose(model.refine(fake), compensate_rounding(fake).clamp(0, 1), atol=1e-3)
    assert small().generator.centre is None and "generator.centre" not in small().state_dict()


def test_the_mean_correction_is_that_of_fakes_alone():
    model = trained(centre=True)
    before, fake, real = model.generator.centre.clone(), images(3), images(3, 1)
    with torch.no_grad():
        mag = image_to_mag(fake)[0]
        out = model.generator.decode(model.generator.encode(mag))
        t = model.translate(fake, real)
    assert before.abs().max() > 0
    assert torch.allclose(t.refined_mag, (mag + out - before).clamp_min(-1), atol=1e-5)
    assert torch.allclose(model.generator.centre, before.lerp(out.mean(0), nested_unet.CENTRE_RATE), atol=1e-6)


def test_the_centre_of_the_averaged_generator_follows_at_the_rate_of_its_weights(monkeypatch):
    torch.manual_seed(0)
    trainer, means = Trainer(small(centre=True), 1e-3, total_steps=20, ema=0.5), []
    follow = trainer.model.generator.follow
    monkeypatch.setattr(trainer.model.generator, "follow", lambda mean: means.append(mean.clone()) or follow(mean))
    for step in range(3):
        trainer.train_step(images(2, step), images(2, 10 + step))
    expected = nested_unet.CENTRE_RATE * means[0]
    for mean in means[1:]:
        expected = expected.lerp(mean, 0.5)
    assert len(means) == 3 and torch.allclose(trainer.refiner.centre, expected, atol=1e-7) and expected.abs().max() > 0


def test_by_default_both_centres_are_one():
    """The weights are averaged at the rate at which the centre moves, so the averaged weights' mean correction is the centre."""
    ema = parse_train(["--data", "x", "--size", "16", "--dst", "x"]).ema
    trainer = Trainer(small(centre=True), 1e-3, total_steps=20, ema=ema)
    for step in range(3):
        trainer.train_step(images(2, step), images(2, 10 + step))
    centre = trainer.model.generator.centre
    assert (trainer.refiner.centre - centre).abs().max() < 1e-3 * centre.abs().max()


def test_grey_images_stay_grey():
    model, image = trained(), images(3)
    image[1:] = image[1:].mean(1, keepdim=True)
    refined = model.refine(image)
    assert (refined[1:] - refined[1:, :1]).abs().max() < 1e-5 < 1e-3 < (refined[0] - refined[0, :1]).abs().max()
    assert (refined[1:] - image[1:]).abs().max() > 1e-3  # something is done to them


def test_settings_that_know_no_centre_have_none():
    settings = {"size": SIZE, "mode": "residual", "norm": "instance", "upsample": "bilinear", "width": WIDTH}
    settings["objective"] = dataclasses.asdict(Objective())
    assert STIG.from_settings(settings).generator.centre is None
    assert STIG.from_settings(settings | {"centre": True}).generator.centre.shape == (3, SIZE, SIZE)


def test_training_takes_fakes_for_unseen_ones_and_refining_does_not():
    real, fake = images(12, 1), images(12, 2)
    base = fit_filters(lambda: [real], lambda: [fake], ["polyphase"])["polyphase"]
    model, filtered_fake = small(base=base), apply_filter(fake, base)
    prepared = model.translate(fake, real).prepared_image
    assert torch.allclose(prepared, as_unseen(filtered_fake, base), atol=1e-6)
    assert not torch.allclose(prepared, filtered_fake, atol=1e-4)
    assert torch.allclose(model.refine(fake), compensate_rounding(filtered_fake).clamp(0, 1), atol=1e-4)


def test_networks_see_whitened_magnitudes_and_correct_in_their_units():
    whitening = fit_whitening([images(4)])
    mags = image_to_mag(images(4))[0].double()
    assert torch.allclose(whitening[0], mags.mean(0).float(), atol=1e-5)
    assert torch.allclose(whitening[1], mags.std(0).clamp_min(LEAST_DEVIATION).float(), atol=1e-4)
    model = small(whitening=whitening)
    seen = []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    t = model.translate(images(1), images(1, 1))
    model.discriminator_loss(t)
    model.generator_loss(t)
    expected = [(mag - whitening[0]) / whitening[1] for mag in (t.real_mag, t.refined_mag, t.refined_mag)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, expected, strict=True))
    again = model.generator.encode((t.fake_mag - whitening[0]) / whitening[1])
    assert torch.allclose(t.features[0][:1], again[0], atol=1e-4)
    torch.nn.init.constant_(model.generator.final.bias, 0.5)
    moved = model.translate(images(1), images(1, 1))
    assert torch.allclose(moved.refined_mag, (t.fake_mag + 0.5 * whitening[1]).clamp_min(-1), atol=1e-5)


@pytest.mark.parametrize("width", [8, 64])
def test_width_is_that_of_the_first_level(width):
    assert STIG(SIZE, width=width).generator.channels == (width, 2 * width, 4 * width, 8 * width, 8 * width)


def test_instance_norm_keeps_images_apart_in_training_too():
    generator = small_generator("direct", "instance").train()
    mag = images(2) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(generator(mag)[:1], generator(mag[:1]), atol=1e-5)


def test_residual_output_is_bounded_below():
    generator = small_generator()
    torch.nn.init.constant_(generator.final.bias, -5)
    assert generator(images(1) * 2 - 1).min() == -1


@pytest.mark.parametrize("upsample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["residual", "direct"])
def test_shapes_and_range(mode, upsample):
    out = small_generator(mode, upsample=upsample)(images(1, size=16) * 2 - 1)
    assert out.shape == (1, 3, 16, 16)
    assert out.abs().max() <= 1


def test_options_change_the_result():
    torch.manual_seed(0)
    generator = small_generator("direct", upsample="bilinear")
    mag = images(1) * 2 - 1
    bilinear = generator(mag)
    generator.upsample = "bicubic"
    assert (generator(mag) - bilinear).abs().max() > 1e-4


def test_sizes_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        STIG(40)


def test_unit_range():
    image = torch.tensor([-1.0, 0.5, 3.0]).view(1, 1, 1, 3)
    assert to_unit_range(image, "clamp").flatten().tolist() == [0, 0.5, 1]
    assert to_unit_range(image, "stretch").flatten().tolist() == [0, 0.375, 1]


def test_discriminators_learn_in_their_own_step_alone():
    model = small()
    t = model.translate(images(1), images(1, 1))
    model.discriminator_loss(t)["total"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    model.zero_grad()
    model.freeze_discriminators(True)
    model.generator_loss(t)["total"].backward()
    assert all(p.grad is None for p in model.discriminator_parameters())
    assert all(p.grad is not None for name, p in model.generator.named_parameters())


@pytest.mark.parametrize("term", ["gan", "psd", "nce", "identity", "fake_identity", "lf"])
def test_every_weight_is_applied_once(term):
    names = {"gan": ["g_patch"], "psd": ["g_spectral"], "nce": ["nce_fake", "nce_real"], "lf": ["low_frequency"]}.get(term, [term])
    weights = {f"lambda_{name}": 0.0 for name in ("gan", "psd", "nce", "identity", "fake_identity", "lf")}
    model = small(objective=Objective(**weights | {f"lambda_{term}": 7.0}), mode="direct")
    with torch.no_grad():
        terms = model.generator_loss(model.translate(images(1), images(1, 1)))
    assert terms["total"].item() == pytest.approx(7 * sum(terms[name].item() for name in names), rel=1e-6)
    assert terms["total"] > 0


def test_reused_features_are_those_of_the_input():
    model = small(mode="direct")
    t = model.translate(images(1), images(1, 1))
    again = model.generator.encode(torch.cat([t.fake_mag, t.real_mag]))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(t.features, again, strict=True))


def test_amp_keeps_spectra_and_losses_in_float32():
    model = small(amp=True)
    t = model.translate(images(1), images(1, 1))
    assert t.features[0].dtype == torch.bfloat16
    assert t.refined_mag.dtype == t.refined_image.dtype == t.refined_profile.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in model.generator_loss(t).values())


def test_learning_rate_schedule_is_never_negative():
    factors = [rate_factor(step, 7) for step in range(9)]
    assert factors[:2] == [1, 1]
    assert factors[7] == factors[8] == 0
    assert sorted(factors, reverse=True) == factors
    assert rate_factor(60, 100) == pytest.approx(0.5)


def test_trainer_state_round_trip_is_exact():
    torch.manual_seed(0)
    straight, broken = (Trainer(small(mode="direct"), 1e-3, 4, 0.9) for _ in range(2))
    straight.train_step(images(1, 1), images(1, 2))  # before it optimisers are empty, and the average is the generator
    straight.train_step(images(1, 3), images(1, 4))
    broken.load_state_dict(copy.deepcopy(straight.state_dict()))  # as from a file: optimisers keep the tensors that they are given
    for trainer in (straight, broken):
        torch.manual_seed(1)
        trainer.train_step(images(1, 5), images(1, 6))
    assert straight.step == broken.step == 3 and straight.lr == broken.lr
    assert all(torch.equal(a, b) for a, b in zip(straight.model.parameters(), broken.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(straight.refiner.parameters(), broken.refiner.parameters(), strict=True))


def test_a_compiled_step_is_the_same(monkeypatch):
    """Of what is spelled out for the compiler, which compiles it in the test below."""
    monkeypatch.setattr(nested_unet, "_compiled", lambda function: function)
    trainers = [Trainer(small(norm="instance"), 1e-4, total_steps=10, ema=0.9) for _ in range(2)]
    trainers[1].model.load_state_dict(trainers[0].model.state_dict())
    trainers[1].averaged.load_state_dict(trainers[0].averaged.state_dict())
    trainers[1].model.generator.compile_parts()
    found = []
    for trainer in trainers:
        torch.manual_seed(1)
        found.append([trainer.train_step(images(count, step), images(count, 10 + step)) for step, count in enumerate((2, 1))])
    for plain, compiled in zip(*found, strict=True):
        for name, term in plain.items():
            assert compiled[name].item() == pytest.approx(term.item(), rel=1e-3, abs=1e-5), name
    fake = images(1, 2)
    plain, compiled = (trainer.model.refine(fake, trainer.refiner) for trainer in trainers)
    assert torch.allclose(plain, compiled, atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_average_is_exponential(norm):
    trainer = Trainer(small(norm=norm), 1e-2, total_steps=10, ema=0.9)
    expected = None
    for step in range(4):
        trainer.train_step(images(2, step), images(2, 10 + step))
        now = [value.clone() for value in trainer.model.generator.state_dict().values() if value.is_floating_point()]
        expected = now if expected is None else [0.9 * old + 0.1 * new for old, new in zip(expected, now, strict=True)]
    found = [value for value in trainer.refiner.state_dict().values() if value.is_floating_point()]
    assert trainer.averaged.n_averaged == 4
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_compiled_for_a_smaller_batch(monkeypatch):
    """Also if it is the first of a run that is resumed at the end of an epoch."""
    calls, kept, found = [], [], []
    monkeypatch.setattr(nested_unet, "_compiled", lambda function: calls.append(function) or function)
    remade = nested_unet.remade
    monkeypatch.setattr(nested_unet, "remade", lambda *maps, kept: found.append(kept) or remade(*maps, kept=kept))
    trainer = Trainer(small(), 1e-4, total_steps=10, ema=0.9)
    trainer.model.generator.compile_parts()
    for step, count in enumerate((1, 2, 2, 1)):
        calls.clear(), found.clear()
        trainer.train_step(images(count, step), images(count, 10 + step))
        kept.append((bool(calls), set(found)))
    assert kept == [(True, {True})] * 3 + [(False, {False})]  # nor are the maps kept that then would not pay
    resumed = Trainer(small(), 1e-4, total_steps=10, ema=0.9)
    resumed.model.generator.compile_parts()
    resumed.load_state_dict(trainer.state_dict())
    calls.clear()
    resumed.train_step(images(1), images(1, 10))
    assert not calls


def test_each_level_is_compiled_once(monkeypatch):
    """torch compiles a function for eight kinds of argument and then gives up."""
    kinds = {}

    def counting(function):
        def call(x, *rest):
            kinds.setdefault(function.__name__, set()).add((x.shape, x.stride(), x.dtype))
            return function(x, *rest)

        return call

    monkeypatch.setattr(nested_unet, "_compiled", counting)
    trainer = Trainer(STIG(64, Objective(nce_levels=(0, 4), sigma=4), width=WIDTH), 1e-4, total_steps=10, ema=0.9)
    trainer.model.generator.compile_parts()
    for step in range(2):
        trainer.train_step(images(2, step, 64), images(2, 10 + step, 64))
    assert {name: len(found) for name, found in kinds.items()} == {"rectified_instance_norm": 5, "bilinear_gradient": 4}


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.skipif(not shutil.which("g++"), reason="g++"))])
def test_what_is_spelled_out_for_the_compiler(compiles, monkeypatch):
    if not compiles:
        monkeypatch.setattr(nested_unet, "_compiled", lambda function: function)
    x = torch.randn(2, 3, 6, 10, requires_grad=True)
    norm = nested_unet.InstanceNorm(3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    pairs = [
        (nested_unet._BilinearUpsample.apply(x), nested_unet.upsample(x, "bilinear")),
        (norm.rectified(x), norm(x).relu()),
    ]
    for own, torchs in pairs:
        weights = torch.randn_like(torchs)
        gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (own, torchs)]
        torch.testing.assert_close(own, torchs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_contrastive_terms_compare_a_position_with_itself(monkeypatch):
    positions = torch.tensor([5, 300, 11, 40])
    monkeypatch.setattr("models.stig.sample_positions", lambda *_: positions)
    model = small()
    with torch.no_grad():
        t = model.translate(images(1), images(1, 1))
        found = model.contrastive_terms(t)
        for value, out, source in zip(found, (t.refined_mag, t.identity_mag), (t.fake_mag, t.real_mag), strict=True):
            query, key = (model.heads(model.generator.encode(mag, 1)[0], positions, 0) for mag in (out, source))
            assert value.item() == pytest.approx(patch_nce(query, key, model.objective.tau).item(), rel=1e-4)
            assert value.item() < patch_nce(query, key.flip(1), model.objective.tau).item() / 2  # flipped: another position


def test_a_projection_of_length_0_does_not_drown_the_others():
    """Biases begin at 0, so features of which a head sees nothing are projected to exactly 0."""
    torch.manual_seed(0)
    heads, positions = PatchHeads((8,)), torch.arange(16)
    maps = torch.randn(1, 8, 4, 4)
    maps[..., 0, 0] = 0
    patch_nce(heads(maps, positions, 0), heads(torch.randn(1, 8, 4, 4), positions, 0), 0.07).backward()
    gradient = heads.mlp_0[2].bias.grad
    heads.zero_grad()
    others = positions[1:]  # all but the features that are 0
    patch_nce(heads(maps, others, 0), heads(torch.randn(1, 8, 4, 4), others, 0), 0.07).backward()
    assert 0 < gradient.abs().max() < 10 * heads.mlp_0[2].bias.grad.abs().max()


def test_contrastive_passes_leave_running_statistics_alone():
    """Inference uses them, and it runs the forward pass."""
    model = small(norm="batch", objective=Objective(patches=16))
    model.train()
    t = model.translate(images(2), images(2, 1))
    before = {name: value.clone() for name, value in model.generator.named_buffers()}
    assert before["conv0_0.bn1.running_mean"].abs().max() > 0
    model.generator_loss(t)
    assert all(torch.equal(value, before[name]) for name, value in model.generator.named_buffers())
    model.translate(images(2), images(2, 1))
    assert not torch.equal(model.generator.conv0_0.bn1.running_mean, before["conv0_0.bn1.running_mean"])


def test_fakes_and_reals_have_positions_of_their_own_all_over_the_map():
    model = small(objective=Objective(nce_levels=(0, 2), patches=10**6))
    drawn = model.draw_positions(images(1))
    assert [sorted(positions.tolist()) for positions in drawn] == [list(range(area)) for area in (1024, 64) * 2]
    assert not torch.equal(drawn[0], drawn[2])
    first, second = [torch.arange(8)] * 2, [torch.arange(8, 16)] * 2
    with torch.no_grad():
        t = model.translate(images(1), images(1, 1))
        found, of_first, of_second = (model.contrastive_terms(t, sides) for sides in (first + second, first * 2, second * 2))
    assert found[0] == of_first[0] != of_second[0] and found[1] == of_second[1] != of_first[1]


def test_the_least_deviation_is_a_hundredth_of_the_range():
    assert torch.equal(fit_whitening([images(1)])[1], torch.full((3, SIZE, SIZE), 0.02))  # a single image does not deviate
