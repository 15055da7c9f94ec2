"""The device a script runs on."""

import torch

from utils.errors import UserError


def resolve_device(text):
    """`--device` -> torch.device.

    Args:
        text: "auto" (first GPU, else Apple's, else the CPU), "cpu", "mps", a GPU number such as "0", or "cuda:1".
    Raises: UserError if that device is not there or the text names none.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    if text == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("--device mps: this machine has no Apple GPU that torch can use; try --device auto")
        return torch.device("mps")
    if "," in text:
        raise UserError(
            f"--device {text}: training on several GPUs is not supported; name one, such as --device {text.split(',')[0]}"
        )
    number = text.removeprefix("cuda:")
    if not number.isdigit():
        raise UserError(f"--device {text!r} is not understood; give auto, cpu, mps, a GPU number such as 0, or cuda:1")
    if int(number) >= torch.cuda.device_count():
        raise UserError(f"--device {text}: this machine has {torch.cuda.device_count()} usable CUDA GPUs; try --device auto or cpu")
    return torch.device(f"cuda:{number}")
