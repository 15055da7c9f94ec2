"""Nested U-Net (UNet++): the generator that translates a normalised log-magnitude.

Parameters carry the names of the released checkpoints (`conv0_0.conv1.weight`, `conv0_0.bn1.weight`, ..., `final.bias`), so
that those load as they are; `bn1` and `bn2` are the node's normalisations, whichever kind `norm` chooses.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from models.batch_norm import BatchNorm
from models.switches import switched_off

CHANNELS = (64, 128, 256, 512, 512)
DEPTH = len(CHANNELS)
CENTRE_RATE = 0.01  # share of each step in the running mean of corrections


def fastest_layout():
    """Memory format in which this machine trains fastest: channels_last, but where torch reports AVX2 and there is no GPU.

    There, weight gradients in that format run at a third of the rate of others (docs/performance.md). Measured on CPUs with AVX2
    and with AVX-512 only.
    """
    is_slow = not torch.cuda.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if is_slow else torch.channels_last


LAYOUT = fastest_layout()


def channels_of(width):
    """Channels per level of a generator whose first level has `width` of them; 64 is the paper's."""
    return tuple(width * channels // CHANNELS[0] for channels in CHANNELS)


class InstanceNorm(nn.Module):
    """Instance normalisation with scale and shift, per sample and channel, for any memory format."""

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):  # which would have maps in float32 from here on
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            # Not F.group_norm, which refuses the single 1 x 1 map that a 16-px image has at the deepest level.
            return torch.group_norm(x, x.shape[1], weight, bias, self.eps)

    def rectified(self, x):
        """relu(self(x)) in few passes over the map, once compiled; float32 inside."""
        return _compiled(rectified_instance_norm)(x, self.weight, self.bias, self.eps)


def rectified_instance_norm(x, weight, bias, eps):
    """ReLU of the instance normalisation of x (N, C, H, W), spelled out for torch.compile to fuse."""
    wide = x.float()
    variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
    scale = weight[:, None, None] * (variance + eps).rsqrt()
    return ((wide - mean) * scale + bias[:, None, None]).relu().to(x.dtype)


@functools.cache
def _compiled(function):
    """`function`, compiled for each shape it is called with; shared by all networks of a process."""
    return torch.compile(function, dynamic=False)


NORMS = {"batch": BatchNorm, "instance": InstanceNorm, "none": lambda channels: nn.Identity()}


def _needs_gather(x):
    """Whether torch's own kernels would add this tensor's gradients in an order that changes from run to run."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


@functools.lru_cache(maxsize=32)
def _upsampling_matrix(length, mode, device, dtype):
    """(2 length, length): what x2 interpolation does along one axis."""
    unit = torch.eye(length, device=device).view(1, 1, length, length)
    return F.interpolate(unit, (2 * length, length), mode=mode, align_corners=False)[0, 0].to(dtype)


def upsample_as_products(x, mode):
    """`upsample` as two matrix products, whose gradients are matrix products too and the same in every run."""
    rows, columns = (_upsampling_matrix(length, mode, x.device, x.dtype) for length in x.shape[-2:])
    if not x.is_contiguous(memory_format=torch.channels_last):
        return rows @ (x @ columns.t())
    last = x.permute(0, 2, 3, 1)  # (N, H, W, C)
    raised = (rows @ last.flatten(2)).unflatten(2, last.shape[2:])  # (N, 2 H, W, C)
    return (columns @ raised).permute(0, 3, 1, 2)  # (N, C, 2 H, 2 W)


def _padded(x, axis, before, after):
    """x (N, C, H, W) with zeros before and after it along axis 2 or 3."""
    return F.pad(x, (before, after) if axis == 3 else (0, 0, before, after))


def bilinear_gradient(gradient):
    """What the gradient of `upsample` (N, C, 2 H, 2 W), bilinear, is before it: (N, C, H, W).

    Sums of neighbours, always in one order, spelled out for torch.compile to fuse.
    """
    for axis in (2, 3):
        even, odd = gradient.unflatten(axis, (-1, 2)).unbind(axis + 1)
        last = even.shape[axis] - 1
        outer = _padded(even.narrow(axis, 1, last), axis, 0, 1) + _padded(odd.narrow(axis, 0, last), axis, 1, 0)
        edges = _padded(even.narrow(axis, 0, 1), axis, 0, last) + _padded(odd.narrow(axis, last, 1), axis, last, 0)
        gradient = 0.75 * (even + odd) + 0.25 * (outer + edges)
    return gradient


class _BilinearUpsample(torch.autograd.Function):
    """Bilinear `upsample` by torch's kernel, its gradient by `bilinear_gradient` compiled."""

    @staticmethod
    def forward(ctx, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        # a part of the joined maps' gradient, whose strides differ from node to node and would each be compiled anew
        return _compiled(bilinear_gradient)(gradient.contiguous(memory_format=LAYOUT))


def upsample(x, mode):
    """(N, C, H, W) -> (N, C, 2 H, 2 W), bilinear or bicubic without aligned corners.

    Products are also three times as fast as torch's bicubic kernel, and three times slower than its bilinear one, on CPUs
    (docs/performance.md).
    """
    if mode == "bicubic" or _needs_gather(x):
        return upsample_as_products(x, mode)
    return F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)


def halve_as_maxima(x):
    """`halve` without indices: the gradient of equal maxima is shared between them (ReLU drops that of equal zeros)."""
    return x.unflatten(3, (-1, 2)).amax(4).unflatten(2, (-1, 2)).amax(3)


def halve(x):
    """Largest value of each 2 x 2 block: (N, C, H, W) -> (N, C, H / 2, W / 2)."""
    return halve_as_maxima(x) if _needs_gather(x) else F.max_pool2d(x, 2)


def remade(function, *maps, kept=False):
    """function(*maps), for whose gradient only the maps are kept (all, if `kept`): up to its last convolution it is done again."""
    if kept or not torch.is_grad_enabled():
        return function(*maps)
    return checkpoint(function, *maps, use_reentrant=False, preserve_rng_state=False)


class Node(nn.Module):
    """Two times 3x3 convolution, normalisation, ReLU: one X^{i,j} of the grid.

    The inputs of the convolutions are made again for the gradient (joined, raised and normalised maps; no convolution runs twice),
    which takes a quarter off the peak memory of a step; where parts are compiled, time counts for more, and they are kept.
    """

    def __init__(self, in_channels, out_channels, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn1 = NORMS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = NORMS[norm](out_channels)
        self.counts_calls = norm == "batch"  # a second call would count the batch twice in the running statistics
        self.compiled = False  # what lies between convolutions, in training ...
        self.fused = True  # ... at present

    def _is_fused(self):
        return self.compiled and self.fused and self.training

    def _second(self, x):
        return self._convolved(self.conv2, self._rectified(self.bn1, x))

    def _convolved(self, convolution, x):
        """A convolution, without the bias that instance normalisation would take out again where a pass over the maps counts."""
        spared = self.compiled and self.training and isinstance(self.bn1, InstanceNorm)
        return F.conv2d(x, convolution.weight, padding=1) if spared else convolution(x)

    def _rectified(self, norm, x, inplace=False):
        fused = self._is_fused() and isinstance(norm, InstanceNorm)
        return norm.rectified(x) if fused else F.relu(norm(x), inplace)

    def _raised(self, low, mode):
        fused = self._is_fused() and mode == "bilinear"
        return _BilinearUpsample.apply(low) if fused else upsample(low, mode)

    def forward(self, *level, below=None, mode="bilinear"):
        """Maps of this level (N, C, H, W) each, and one of the level `below` (N, C', H / 2, W / 2), to be raised by `mode`.

        Returns: (N, out_channels, H, W).
        """
        kept = self._is_fused()
        if below is None:
            x = self._convolved(self.conv1, *level)
        else:
            x = remade(
                lambda low, *maps: self._convolved(self.conv1, torch.cat([*maps, self._raised(low, mode)], 1)),
                below,
                *level,
                kept=kept,
            )
        x = self._second(x) if self.counts_calls else remade(self._second, x, kept=kept)
        return self._rectified(self.bn2, x, inplace=True)


class NestedUNet(nn.Module):
    """X^{i,j} for i + j <= 4: column 0 is the encoder, X^{0,4} feeds the output.

    Args:
        mode: "residual" adds the output to the input, starts as the identity (last convolution zero) and is bounded below by
            -1; "direct" gives 2 sigmoid - 1 (paper).
        norm: "instance" (an image's result does not depend on its batch, in training too) | "batch" (paper) | "none".
        upsample: "bilinear" | "bicubic", both without aligned corners.
        channels: output channels per level, 64, 128, 256, 512, 512 in the paper.
        centred: side of the maps from whose corrections their running mean is taken (`follow`), so that a fixed pattern is no
            correction; 0: none is taken. For the residual form.
    Raises: ValueError for another mode, norm or upsample.
    """

    def __init__(self, mode="residual", norm="instance", upsample="bilinear", channels=CHANNELS, centred=0):
        super().__init__()
        if mode not in ("residual", "direct") or norm not in NORMS or upsample not in ("bilinear", "bicubic"):
            raise ValueError(f"there is no generator of the form {mode!r}, {norm!r}, {upsample!r}")
        self.mode, self.upsample, self.channels = mode, upsample, tuple(channels)
        for j in range(DEPTH):
            for i in range(DEPTH - j):
                below = channels[i - 1] if i else 3
                inputs = below if j == 0 else j * channels[i] + channels[i + 1]
                setattr(self, f"conv{i}_{j}", Node(inputs, channels[i], norm))
        self.final = nn.Conv2d(channels[0], 3, 1)
        initialise(self)
        if mode == "residual":
            nn.init.zeros_(self.final.weight)
        self.register_buffer("centre", torch.zeros(3, centred, centred) if centred else None)
        self.register_buffer("latest", torch.zeros(3, centred, centred) if centred else None, persistent=False)
        self.to(memory_format=LAYOUT)

    @property
    def compiled(self):
        """Whether `compile_parts` was called."""
        return self.conv0_0.compiled

    def compile_parts(self):
        """Have what lies between convolutions (normalisation with ReLU, the gradient of upsampling) compiled and fused."""
        for part in self.modules():
            if isinstance(part, Node):
                part.compiled = True

    def as_if_not_compiled(self):
        """Context in which compiled parts are computed as in a generator that is not: for a batch not worth compiling for.

        Spelled out as they are for the compiler they would take several times the memory.
        """
        return switched_off(self, Node, "fused")

    def encode(self, mag, levels=DEPTH):
        """Features X^{0,0}, X^{1,0}, ... of the first `levels` levels.

        Args:
            mag: (N, 3, H, W), H and W multiples of 16.
        Returns: list of (N, channels[i], H / 2^i, W / 2^i).
        """
        features = [self.conv0_0(mag.contiguous(memory_format=LAYOUT))]  # (N, 64, H, W)
        for i in range(1, levels):
            features.append(getattr(self, f"conv{i}_0")(halve(features[-1])))  # (N, C_i, H / 2^i, W / 2^i)
        return features

    def decode(self, features):
        """The last convolution's maps (N, 3, H, W) float32, in the residual form corrections, from the encoder's five features."""
        rows = [[feature] for feature in features]
        for j in range(1, DEPTH):
            for i in range(DEPTH - j):
                node = getattr(self, f"conv{i}_{j}")
                rows[i].append(node(*rows[i], below=rows[i + 1][j - 1], mode=self.upsample))  # (N, C_i, H / 2^i, W / 2^i)
        return self.final(rows[0][-1]).float()

    def applied(self, out, mag, scale=1.0):
        """Output magnitude (N, 3, H, W) from `decode`'s maps and the magnitude `mag` to correct.

        `scale` is a number or (3, H, W): what a correction of 1 means, in the residual form.
        """
        if self.mode == "direct":
            return 2 * torch.sigmoid(out) - 1
        return (mag + scale * (out if self.centre is None else out - self.centre)).clamp_min(-1)

    @torch.no_grad()
    def follow(self, mean, rate=CENTRE_RATE):
        """Move the mean that is taken from corrections towards that of a batch of fakes, (3, H, W), of what `decode` gives.

        It is kept as `latest` until the next one.
        """
        self.latest.copy_(mean)
        self.centre.lerp_(mean, rate)

    def forward(self, mag):
        """Normalised log-magnitude (N, 3, H, W) in [-1, 1] -> the same of the refined image."""
        return self.applied(self.decode(self.encode(mag)), mag)


def initialise(module):
    """Paper's start: convolution and linear weights N(0, 0.02), biases 0, norm weights N(1, 0.02)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d | InstanceNorm):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
