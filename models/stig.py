"""STIG: the networks together with the objective that trains them (paper, section on training objectives)."""

import dataclasses

import torch
from torch import nn

from models.batch_norm import share_statistics, uncounted
from models.discriminators import PatchDiscriminator, SpectralDiscriminator
from models.losses import adversarial_loss, low_frequency_loss, ssim
from models.nested_unet import CHANNELS, DEPTH, NestedUNet, channels_of
from models.patchnce import PatchHeads, patch_nce, sample_positions
from utils.distributed import Processes
from utils.fft import image_to_mag, mag_to_image, normalised_log_mag
from utils.filters import FILTER_PARTS, apply_filter, as_unseen, check_filter, grey_where
from utils.profiles import chessboard_profile
from utils.rounding import compensate_rounding


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights and constants of the objective; each weight is applied once, in `STIG.generator_loss`.

    nce_levels: encoder levels whose contrastive cross-entropies are averaged. image_range: "clamp" | "stretch" of the refined
    image to [0, 1]. inverse: "real" | "abs", what is kept of the inverse transform. compensate_rounding: take from refined
    images what rounding to 8 bit will add (`utils.rounding`). rolled_real_profile: take the real's grey profile with the channel
    order (B, R, G), as the released code does (docs/fidelity.md).
    """

    lambda_gan: float = 3.0
    lambda_psd: float = 3.0
    lambda_nce: float = 20.0
    lambda_identity: float = 3.0
    lambda_fake_identity: float = 1.0
    lambda_lf: float = 3.0
    sigma: int = 8
    tau: float = 0.07
    patches: int = 256
    nce_levels: tuple = (0,)
    image_range: str = "clamp"
    inverse: str = "real"
    compensate_rounding: bool = True
    rolled_real_profile: bool = False


@dataclasses.dataclass
class Translation:
    """One forward pass. Everything is (N, 3, H, W) but `features` (per level, fakes then reals) and `refined_profile` (N, R).

    `prepared_image` is the fake after the base filter. `refined_image` and `identity_image` are as the inverse transform gives
    them, before they are brought to [0, 1].
    """

    prepared_image: torch.Tensor
    real_image: torch.Tensor
    fake_mag: torch.Tensor
    real_mag: torch.Tensor
    refined_mag: torch.Tensor
    identity_mag: torch.Tensor
    refined_image: torch.Tensor
    identity_image: torch.Tensor
    refined_profile: torch.Tensor
    features: list


def to_unit_range(image, how):
    """Image (N, C, H, W) -> [0, 1]: "clamp" cuts, "stretch" scales each sample by its own minimum and maximum."""
    if how == "clamp":
        return image.clamp(0, 1)
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp_min(1e-12)


class STIG(nn.Module):
    """Generator, PatchGAN, spectral discriminator and contrastive heads.

    Args:
        size: side of the square images in pixels, a multiple of 16.
        objective: an `Objective`.
        mode, norm, upsample: see `NestedUNet`. width: channels of its first level.
        base: filter (`utils.filters`) that every fake passes before the generator, or None.
        whitening: (2, 3, H, W) mean and standard deviation of photographs' magnitudes over images: networks see magnitudes
            with that mean removed, in units of that deviation, and the residual generator corrects in them. None: as they are.
        centre: with the residual form, take from corrections their running mean over the fakes: what all fakes have in common the
            base filter has corrected, the network corrects what differs from image to image.
        amp: run the networks in bfloat16; spectra, normalisation of the result and losses stay in float32.
    """

    def __init__(
        self,
        size,
        objective=None,
        mode="residual",
        norm="instance",
        upsample="bilinear",
        width=CHANNELS[0],
        base=None,
        whitening=None,
        centre=False,
        amp=False,
    ):
        super().__init__()
        if size % 2 ** (DEPTH - 1):
            raise ValueError(f"size {size} is not a multiple of {2 ** (DEPTH - 1)}")
        self.objective = objective or Objective()
        self.generator = NestedUNet(mode, norm, upsample, channels_of(width), size if centre else 0)
        self.discriminator = PatchDiscriminator()
        self.spectral_discriminator = SpectralDiscriminator(size // 2 + 1)
        self.heads = PatchHeads(self.generator.channels)
        self.amp = amp
        for name in FILTER_PARTS:
            self.register_buffer(f"base_{name}", (base or {}).get(name))
        self.register_buffer("whitening", whitening)
        # Batch statistics make a feature depend on its neighbours, so those of the pair cannot serve for each image alone.
        self.reuse_features = norm != "batch"
        self._whole_mean = Processes().mean

    def share_batches(self, processes):
        """Let what does not split into a sum over images be taken over the batches of all these `Processes`."""
        self._whole_mean = processes.mean
        share_statistics(self.generator, processes)

    def _networks(self, tensor):
        """Autocast context for what is a network, and nothing else."""
        return torch.autocast(tensor.device.type, torch.bfloat16, enabled=self.amp)

    @property
    def _base(self):
        parts = {name: getattr(self, f"base_{name}") for name in FILTER_PARTS}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    def _seen(self, mag):
        """The magnitude as networks see it."""
        return mag if self.whitening is None else (mag - self.whitening[0]) / self.whitening[1]

    def _generate(self, generator, mag):
        """Output magnitude (N, 3, H, W), the encoder's features, and the decoder's maps."""
        with self._networks(mag):
            features = generator.encode(self._seen(mag))
            out = generator.decode(features)
        return generator.applied(out, mag, 1.0 if self.whitening is None else self.whitening[1]), features, out

    @torch.no_grad()
    def refine(self, image, generator=None, is_real=False):
        """Refine images for use; an image's result does not depend on the others in the batch.

        Args:
            image: (N, 3, H, W) in [0, 1].
            generator: the `NestedUNet` to use instead of the trained one (its average, say).
            is_real: the images are photographs, which skip the base filter: the result is the identity image.
        Returns: refined (or identity) image (N, 3, H, W) in [0, 1].
        """
        generator = self.generator if generator is None else generator
        was_training = generator.training
        generator.eval()
        mag, phase, mag_range = image_to_mag(image if is_real else apply_filter(image, self._base))
        refined_mag, *_ = self._generate(generator, mag)
        generator.train(was_training)
        refined_image = mag_to_image(refined_mag, phase, mag_range, self.objective.inverse)
        if self.generator.mode == "residual":
            refined_image = grey_where(image, refined_image)
        if self.objective.compensate_rounding and not is_real:  # a photograph that comes back as it was needs no rounding
            refined_image = compensate_rounding(refined_image)
        return to_unit_range(refined_image, self.objective.image_range)

    def translate(self, fake_image, real_image):
        """One forward pass over fakes and reals together: (N, 3, H, W) in [0, 1] each -> `Translation`.

        For training: the fakes are taken for those that the base filter was fitted on, and the mean correction follows them.
        """
        prepared_image = as_unseen(apply_filter(fake_image, self._base), self._base)
        mag, phase, mag_range = image_to_mag(torch.cat([prepared_image, real_image]))  # (2N, 3, H, W)
        out_mag, features, out = self._generate(self.generator, mag)  # (2N, 3, H, W)
        self._follow(out[: len(fake_image)].detach())
        out_image = mag_to_image(out_mag, phase, mag_range, self.objective.inverse)  # (2N, 3, H, W), not in [0, 1] yet
        fake_mag, real_mag = mag.chunk(2)
        refined_mag, identity_mag = out_mag.chunk(2)
        refined_image, identity_image = out_image.chunk(2)
        # The profile is that of the image, not of `refined_mag`: what the inverse transform and the range undo does not count.
        refined_mag_of_image = normalised_log_mag(to_unit_range(refined_image, self.objective.image_range))
        refined_profile = chessboard_profile(refined_mag_of_image)  # (N, R)
        return Translation(
            prepared_image,
            real_image,
            fake_mag,
            real_mag,
            refined_mag,
            identity_mag,
            refined_image,
            identity_image,
            refined_profile,
            features,
        )

    def _follow(self, corrections):
        """Have the mean that is taken from corrections follow those of a batch of fakes (N, 3, H, W)."""
        if self.generator.centre is not None:
            self.generator.follow(self._whole_mean(corrections.mean(0)))

    def discriminator_loss(self, t):
        """Both discriminators against the translation `t`, whose refined side is detached.

        Returns: dict of unweighted terms `d_patch`, `d_spectral` and `total`, their sum.
        """
        real_mag = t.real_mag.roll(1, dims=1) if self.objective.rolled_real_profile else t.real_mag
        with self._networks(t.real_mag):
            d_real, d_refined = (self.discriminator(self._seen(mag)) for mag in (t.real_mag, t.refined_mag.detach()))
        s_real = self.spectral_discriminator(chessboard_profile(real_mag))
        s_refined = self.spectral_discriminator(t.refined_profile.detach())
        d_patch = (adversarial_loss(d_real, True) + adversarial_loss(d_refined, False)) / 2
        d_spectral = (adversarial_loss(s_real, True) + adversarial_loss(s_refined, False)) / 2
        return {"d_patch": d_patch, "d_spectral": d_spectral, "total": d_patch + d_spectral}

    def generator_loss(self, t, positions=None):
        """Generator and contrastive heads against the current discriminators (switch their gradients off with
        `freeze_discriminators`).

        Args:
            positions: of `draw_positions`; None draws them.
        Returns: dict of unweighted terms `g_patch`, `g_spectral`, `nce_fake`, `nce_real`, `identity`, `fake_identity`,
            `low_frequency` and the weighted `total`.
        """
        o = self.objective
        with self._networks(t.refined_mag):
            d_refined = self.discriminator(self._seen(t.refined_mag))
        terms = {
            "g_patch": adversarial_loss(d_refined, True),
            "g_spectral": adversarial_loss(self.spectral_discriminator(t.refined_profile), True),
            "identity": 1 - ssim(t.real_image, t.identity_image),
            "fake_identity": 1 - ssim(t.prepared_image, t.refined_image),
            "low_frequency": low_frequency_loss(t.refined_mag, t.fake_mag, o.sigma, self._whole_mean)
            + low_frequency_loss(t.identity_mag, t.real_mag, o.sigma, self._whole_mean),
        }
        terms["nce_fake"], terms["nce_real"] = self.contrastive_terms(t, positions)
        weights = {
            "g_patch": o.lambda_gan,
            "g_spectral": o.lambda_psd,
            "identity": o.lambda_identity,
            "fake_identity": o.lambda_fake_identity,
            "low_frequency": o.lambda_lf,
            "nce_fake": o.lambda_nce,
            "nce_real": o.lambda_nce,
        }
        terms["total"] = sum(weights[name] * term for name, term in terms.items())
        return terms

    def draw_positions(self, image):
        """Random positions of the contrastive terms on images (N, 3, H, W): those of fakes on each level, then those of reals."""
        o, (height, width) = self.objective, image.shape[-2:]
        areas = [(height >> level) * (width >> level) for level in o.nce_levels] if o.lambda_nce else []
        return [sample_positions(area, o.patches, image.device) for area in areas * 2]

    def contrastive_terms(self, t, positions=None):
        """Mean cross-entropy over the levels for fake -> refined and for real -> identity: two scalars."""
        o = self.objective
        if o.lambda_nce == 0:
            return t.fake_mag.new_zeros(()), t.fake_mag.new_zeros(())
        levels = max(o.nce_levels) + 1
        if self.reuse_features:
            queries = self._encode(torch.cat([t.refined_mag, t.identity_mag]), levels)
            pairs = [(query.chunk(2), key.detach().chunk(2)) for query, key in zip(queries, t.features[:levels], strict=True)]
            sides = [[(query[side], key[side]) for query, key in pairs] for side in (0, 1)]
        else:
            sides = [
                list(zip(self._encode(out, levels), self._keys(source, levels), strict=True))
                for out, source in ((t.refined_mag, t.fake_mag), (t.identity_mag, t.real_mag))
            ]
        positions = self.draw_positions(t.fake_mag) if positions is None else positions
        count = len(o.nce_levels)
        return tuple(map(self._levels_nce, sides, (positions[:count], positions[count:])))

    def _encode(self, mag, levels):
        with self._networks(mag), uncounted(self.generator):  # images are generated with the forward pass's statistics
            return self.generator.encode(self._seen(mag), levels)

    @torch.no_grad()
    def _keys(self, mag, levels):
        return self._encode(mag, levels)

    def _levels_nce(self, maps, positions):
        """Mean over the levels, from (query, key) of every level and the positions on each of those that count."""
        levels, total = self.objective.nce_levels, 0.0
        for level, chosen in zip(levels, positions, strict=True):
            query, key = maps[level]
            with torch.no_grad():
                projected_key = self.heads(key, chosen, level)
            total = total + patch_nce(self.heads(query, chosen, level), projected_key, self.objective.tau)
        return total / len(levels)

    @classmethod
    def from_settings(cls, settings, base=None, whitening=None, amp=False):
        """Build from the plain dictionary `settings` of a checkpoint: size, mode, norm, upsample, width, centre, objective.

        Raises: KeyError, TypeError or ValueError if a setting is missing, unknown or no setting, or a tensor has another shape.
        """
        objective = Objective(**settings["objective"] | {"nce_levels": tuple(settings["objective"]["nce_levels"])})
        form = {name: settings[name] for name in ("mode", "norm", "upsample", "width")}
        form["centre"] = settings.get("centre", False)  # older ones have none
        size = settings["size"]
        check_filter(base or {}, size)
        if whitening is not None and whitening.shape != (2, 3, size, size):
            raise ValueError(f"whitening is {tuple(whitening.shape)} and not {(2, 3, size, size)}")
        return cls(size, objective, base=base, whitening=whitening, amp=amp, **form)

    def discriminator_parameters(self):
        """Parameters of both discriminators."""
        return [*self.discriminator.parameters(), *self.spectral_discriminator.parameters()]

    def freeze_discriminators(self, frozen):
        """Switch the discriminators' gradients off while the generator steps, and on again."""
        for parameter in self.discriminator_parameters():
            parameter.requires_grad_(not frozen)
