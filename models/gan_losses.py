"""Losses of small GANs: adversarial, gradient penalty, and two that look at the spectrum.

Adversarial terms: Goodfellow et al. 2014 (gan, non-saturating), Mao et al. 2017 (lsgan), Arjovsky et al. 2017 (wgan).
Every function returns an unweighted scalar.
"""

import torch
from torch.nn import functional

from utils.devices import sent
from utils.distributed import Processes
from utils.fft import half_fourier
from utils.profiles import half_ring_means, to_grey

ADVERSARIAL = ("gan", "lsgan", "wgan-gp")
PENALTIES = ("none", "zero", "one", "lipschitz")
PENALTY_SAMPLES = ("line", "real", "fake", "dragan")
METRICS = ("1", "2", "cos")
ALONE = Processes()  # by default the whole batch is here


def discriminator_loss(kind, real_logit, fake_logit):
    """Loss of the discriminator from its logits (N,) on real and fake images.

    gan: BCE against 1 and 0, lsgan: squared distance from 1 and 0, wgan-gp: mean(fake) - mean(real). Both halves are added.
    """
    if kind == "gan":
        return functional.softplus(-real_logit).mean() + functional.softplus(fake_logit).mean()
    if kind == "lsgan":
        return (real_logit - 1).square().mean() + fake_logit.square().mean()
    if kind == "wgan-gp":
        return fake_logit.mean() - real_logit.mean()
    raise ValueError(f"adversarial loss {kind!r} is none of {', '.join(ADVERSARIAL)}")


def generator_loss(kind, fake_logit):
    """Loss of the generator from the logits (N,) of its images: it wants them called real."""
    if kind == "gan":
        return functional.softplus(-fake_logit).mean()
    if kind == "lsgan":
        return (fake_logit - 1).square().mean()
    if kind == "wgan-gp":
        return -fake_logit.mean()
    raise ValueError(f"adversarial loss {kind!r} is none of {', '.join(ADVERSARIAL)}")


def _deviation(values, processes):
    """Standard deviation over the values of the whole batch."""
    mean, count = processes.mean(values.mean()), values.numel() * processes.extent
    return (processes.mean((values - mean).square().mean()) * count / (count - 1)).sqrt()


def _penalty_points(real, fake, sample, processes):
    def uniform(*shape):  # from torch's CPU generator, so that every device sees the same
        return sent(processes.draw(lambda count: torch.rand(count, *shape, dtype=real.dtype), len(real)), real.device)

    if sample == "real":
        return real
    if sample == "fake":
        return fake
    if sample == "dragan":
        fake = real + 0.5 * _deviation(real, processes) * uniform(*real.shape[1:])
    return real.lerp(fake, uniform(1, 1, 1))


def gradient_penalty(critic, real, fake, kind="zero", sample="line", processes=ALONE):
    """Penalty on the norm g of the critic's gradient: zero g^2, one (g - 1)^2, lipschitz max(0, g - 1)^2; mean over the batch.

    Args:
        critic: (N, 3, H, W) -> (N,), without anything that mixes the batch.
        real, fake: (N, 3, H, W); their own graph is not followed.
        sample: where the gradient is taken: on a random point of the line between real and fake, at real, at fake, or
            (dragan) between real and real plus noise.
        processes: `Processes` that share the batch; its `mean` of what each returns is the penalty.
    """
    points = _penalty_points(real.detach(), fake.detach(), sample, processes).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    squared = gradient.flatten(1).square().sum(1)  # (N,)
    if kind == "zero":
        return squared.mean()
    excess = squared.clamp_min(1e-24).sqrt() - 1
    if kind == "one":
        return excess.square().mean()
    if kind == "lipschitz":
        return excess.clamp_min(0).square().mean()
    raise ValueError(f"gradient penalty {kind!r} is none of {', '.join(PENALTIES[1:])}")


def one_sided_magnitude(image):
    """Magnitude of the grey image's one-sided, unshifted transform: (N, 3, H, W) in [0, 1] -> (N, H, W // 2 + 1)."""
    return half_fourier(to_grey(image)).abs()


def high_frequencies(magnitude, threshold):
    """Rows t..H-t-1 (as published: of the frequencies t and -t the first only) and columns t.. of a one-sided magnitude.

    Args:
        magnitude: (N, H, W // 2 + 1).
        threshold: t.
    Returns: (N, H - 2t, W // 2 + 1 - t).
    Raises: ValueError if nothing would stay.
    """
    height, limit = magnitude.shape[-2], min(magnitude.shape[-2] / 2, magnitude.shape[-1] - 1)
    if not 0 <= threshold < limit:
        raise ValueError(f"threshold {threshold} leaves no frequency of images of this size; give 0 to {int(limit - 0.5)}")
    return magnitude[:, threshold : height - threshold, threshold:]


def magnitude_dissimilarity(fake, real, metric):
    """How unlike two batches of magnitudes (N, ...) are; mean over the batch, lower is better.

    Args:
        metric: "1" = 1e-8 x L1 norm, "2" = 2e-4 x Frobenius norm of the difference, "cos" = 1 - cosine.
    """
    fake, real = fake.flatten(1), real.flatten(1)
    if metric == "1":
        return 1e-8 * (fake - real).abs().sum(1).mean()
    if metric == "2":
        return 2e-4 * torch.linalg.vector_norm(fake - real, dim=1).mean()
    if metric == "cos":
        return (1 - functional.cosine_similarity(fake, real, dim=1)).mean()
    raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")


def fourier_dissimilarity(fake_image, real_image, metric="cos", threshold=20):
    """How unlike the high frequencies of fakes and their real partners are; mean over the batch, lower is better.

    Args:
        fake_image, real_image: (N, 3, H, W) in [0, 1].
        metric: see `magnitude_dissimilarity`.
        threshold: see `high_frequencies`; 20 is meant for 256 px.
    """
    bands = (high_frequencies(one_sided_magnitude(image), threshold) for image in (fake_image, real_image))
    return magnitude_dissimilarity(*bands, metric)


def power_profile(image, processes=ALONE):
    """Logarithm of the power averaged over batch and radial ring, scaled to [0, 1]: (N, 3, H, W) -> (R,), differentiable.

    The logarithm is taken after the averages: before them, single bins with hardly any power would rule the gradient. Where
    `processes` share the batch, the average is over the whole of it.
    """
    power = processes.mean(half_fourier(to_grey(image)).abs().square().mean(0))  # (H, W // 2 + 1)
    profile = (half_ring_means(power, image.shape[-1]) + 1e-8).log()  # (R,)
    low, high = profile.min(), profile.max()
    return (profile - low) / (high - low).clamp_min(1e-12)


def spectral_loss(fake_image, real_image, processes=ALONE):
    """Binary cross-entropy between the power profiles of a batch of fakes and of reals (Durall et al., CVPR 2020).

    Differentiable in fake_image. Its smallest value is the entropy of the real profile, not 0. The ends of the scaled fake
    profile are 0 and 1 by construction and carry no gradient: they are clamped so that BCE stays finite there. `processes` as in
    `power_profile`; the loss is the same in all of them.
    """
    target = power_profile(real_image, processes).detach()
    return functional.binary_cross_entropy(power_profile(fake_image, processes).clamp(1e-4, 1 - 1e-4), target)
