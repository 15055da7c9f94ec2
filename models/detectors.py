"""Detectors that are networks: the paper's CNN and ViT-B/16 on spectra or images, its CNN on whitened ones, ResNet-50 on images."""

import math

import torch
from torch import nn
from torchvision.models import ResNet50_Weights, ViT_B_16_Weights, resnet50
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from models.batch_norm import BatchNorm
from utils.detection import margin_score
from utils.devices import to_double
from utils.fft import fourier, normalised_log_mag
from utils.linear_filter import OPPONENT, log_amplitude, mixed

FAKE, REAL = 0, 1  # the paper's classes: places of a network's logits, and nothing else
DOMAINS = {  # the first is the default
    "cnn": ("spectrum", "image"),
    "cnn_whitened": ("opponent", "spectrum"),
    "vit": ("spectrum", "image"),
    "resnet50": ("image",),
}
PRETRAINED = {"vit": ViT_B_16_Weights.IMAGENET1K_V1, "resnet50": ResNet50_Weights.IMAGENET1K_V2}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIT = {"patch_size": 16, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}  # ViT-B/16


def opponent_spectrum(image):
    """Log amplitude of opponent colours (grey, red - blue, green against both): (N, 3, H, W) in [0, 1] -> (N, 3, H, W)."""
    return log_amplitude(fourier(mixed(OPPONENT, image)))


SPECTRA = {"spectrum": normalised_log_mag, "opponent": opponent_spectrum}  # of domains that are spectra: function of a batch


class PaperCNN(nn.Module):
    """The paper's small detector.

    It starts from LeCun's initialisation (variance 1 / fan-in): from torch's own the signal shrinks layer by layer, and at the
    paper's learning rate the loss stays at log 2 for hundreds of steps; from He's it overshoots and may never come back.

    Args:
        size: side of the input, a multiple of 4.
    """

    def __init__(self, size):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1),  # (N, 3, S, S)
            nn.ReLU(),
            nn.Conv2d(3, 8, 3, padding=1),  # (N, 8, S, S)
            nn.ReLU(),
            nn.AvgPool2d(2),  # (N, 8, S / 2, S / 2)
            nn.Conv2d(8, 16, 3, padding=1),  # (N, 16, S / 2, S / 2)
            nn.ReLU(),
            nn.AvgPool2d(2),  # (N, 16, S / 4, S / 4)
            nn.Conv2d(16, 32, 3, padding=1),  # (N, 32, S / 4, S / 4)
            nn.ReLU(),
        )
        self.head = nn.Linear(32 * (size // 4) ** 2, 2)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        """(N, 3, S, S) -> (N, 2) logits, fake and real."""
        return self.head(self.features(x).flatten(1))


def adapt_pretrained(classifier, size, state):
    """ImageNet weights of torchvision -> weights for two classes and this size.

    Args:
        classifier: "vit" or "resnet50".
        size: side of the input; the ViT's position embeddings are interpolated to it (bicubic).
        state: state dictionary of torchvision's `vit_b_16` or `resnet50`, with any number of classes.
    Returns: the state dictionary without its last layer.
    Raises: ValueError if it is of another network.
    """
    mark = {"vit": "encoder.pos_embedding", "resnet50": "fc.weight"}[classifier]
    if mark not in state:
        raise ValueError(f"these weights are not of {classifier}: they lack {mark}")
    if classifier == "vit":
        shape, kind = tuple(state[mark].shape), state[mark].dtype
        patches = shape[1] - 1 if len(shape) == 3 else 0  # the first position is the class token's
        grid = math.isqrt(max(patches, 0))
        if not grid or shape != (1, 1 + grid**2, VIT["hidden_dim"]) or not kind.is_floating_point:
            raise ValueError(f"these weights are not of {classifier}: {mark} is {kind} of shape {shape}")
        state = interpolate_embeddings(size, VIT["patch_size"], dict(state))
    return {name: value for name, value in state.items() if not name.startswith(("heads.", "fc."))}


def check_detector(classifier, size, domain, pretrained=None):
    """ValueError for a size or domain the network cannot take, or weights of another network; no memory for its own is taken.

    Args:
        classifier, size, domain, pretrained: as `Detector`.
    """
    if domain not in DOMAINS[classifier]:
        raise ValueError(f"{classifier} looks at the {DOMAINS[classifier][0]}, not at the {domain}")
    step = {"cnn": 4, "cnn_whitened": 4, "vit": VIT["patch_size"], "resnet50": 1}[classifier]
    if size % step or size < 32:
        raise ValueError(f"{classifier} takes images whose side is a multiple of {step} and at least 32, not {size}")
    if pretrained is not None:
        state = {name: value.to("meta") for name, value in adapt_pretrained(classifier, size, pretrained).items()}
        with torch.device("meta"):  # shapes alone
            Detector(classifier, size, domain)._load(state, classifier)


class Detector(nn.Module):
    """A network with the input it wants.

    Args:
        classifier: a name of DOMAINS.
        size: side of the images: a multiple of 4 (cnn, cnn_whitened) or 16 (vit); any of 32 or more (resnet50).
        domain: "spectrum" gives the network the normalised log-magnitude in [-1, 1] (paper), "opponent" `opponent_spectrum`,
            "image" the pixels.
        pretrained: None, or ImageNet weights as `adapt_pretrained` takes them.
    Raises: ValueError for a size or domain the network cannot take, or weights of another network.

    Attributes: whitening: (2, 3, S, S) of the cnn_whitened, mean and deviation of each bin over its training images, 0 and 1 until
        they are filled in (`utils.whitening.fit_whitening`); None of the others.
    """

    def __init__(self, classifier, size, domain, pretrained=None):
        super().__init__()
        check_detector(classifier, size, domain)
        self.domain, self.imagenet_input = domain, classifier in PRETRAINED and domain == "image"
        plain = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).repeat(1, 3, size, size)
        self.register_buffer("whitening", plain if classifier == "cnn_whitened" else None)
        if classifier in ("cnn", "cnn_whitened"):
            self.network = PaperCNN(size)
        elif classifier == "vit":
            self.network = VisionTransformer(image_size=size, num_classes=2, **VIT)
        else:
            self.network = resnet50(num_classes=2, norm_layer=BatchNorm)
        if pretrained is not None:
            self._load(adapt_pretrained(classifier, size, pretrained), classifier)

    def _load(self, state, classifier):
        try:
            missing, unexpected = self.network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"these weights do not fit {classifier}: {str(error).splitlines()[-1].strip()}") from error
        if unexpected or not all(name.startswith(("heads.", "fc.")) for name in missing):
            raise ValueError(f"these weights are not of {classifier}: missing {missing[:3]}, unexpected {unexpected[:3]}")

    def prepare(self, image):
        """What the network sees: (N, 3, H, W) in [0, 1] -> (N, 3, H, W)."""
        if self.domain in SPECTRA:
            spectrum = SPECTRA[self.domain](image)
            return spectrum if self.whitening is None else (spectrum - self.whitening[0]) / self.whitening[1]
        if self.imagenet_input:
            mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
            return (image - mean) / std
        return 2 * image - 1

    def forward(self, image):
        """(N, 3, S, S) in [0, 1] -> (N, 2) logits of fake (0) and real (1); the resnet50 takes any sides of 32 or more."""
        return self.network(self.prepare(image))


def fake_score(logits):
    """(N, 2) logits -> (N,) float64 `margin_score`, higher = more likely fake."""
    logits = to_double(logits)
    return margin_score(logits[:, FAKE] - logits[:, REAL])
