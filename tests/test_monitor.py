"""The pictures and numbers of a training while it runs."""

import torch
from small import photographs

from utils.distributed import Processes
from utils.logging import open_log
from utils.metrics import PSNR_CEILING
from utils.monitor import Monitor


def test_refined_images_are_shown_as_files_hold_them(tmp_path):
    """What is below half a level of 8 bit is not there any more."""
    fakes = (photographs(3, 1).clamp(0.1, 0.9) * 255).round() / 255
    monitor = Monitor(lambda image: image + 0.001, lambda image: image, fakes, fakes, tmp_path / "sample", torch.device("cpu"))
    assert torch.equal(monitor.examples()["refined"], fakes[0])
    with open_log(tmp_path, None, Processes()) as log:
        monitor.show(1, log)
    table = dict(zip(*(line.split(",") for line in (tmp_path / "monitor.csv").read_text().splitlines()), strict=True))
    assert float(table["psnr"]) == PSNR_CEILING
    assert {path.name for path in (tmp_path / "sample").iterdir()} == {
        f"000001_{kind}.png" for kind in ("images", "spectra", "profiles")
    }
