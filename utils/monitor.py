"""What a refiner does to a few fixed images while it trains: pictures on disk and numbers in the log."""

import torch

from utils.metrics import PSNR_CEILING, SpectrumMean, psnr, spectral_distances
from utils.pictures import to_8bit

IMAGES = 16


class Monitor:
    """Refines the same images at every call, so that pictures and numbers of different steps compare.

    Args:
        refine, identify: functions (N, 3, H, W) -> (N, 3, H, W), on `device`, for fakes and for reals.
        real, fake: datasets of (3, H, W) images in [0, 1]; the first 16 of each are used.
        folder: where the pictures go.
    """

    def __init__(self, refine, identify, real, fake, folder, device):
        self.refine, self.identify, self.folder, self.device = refine, identify, folder, device
        self.real, self.fake = real, fake

    def _refined(self, fake_image):
        """(1, 3, H, W) as a file holds it: what rounding will add was taken out of it."""
        return to_8bit(self.refine(fake_image))

    def _batches(self, dataset):
        for index in range(min(IMAGES, len(dataset))):
            yield dataset[index][None].to(self.device)  # (1, 3, H, W)

    def examples(self):
        """The first image of each kind: dict fake, refined, real, identity -> (3, H, W) in [0, 1] on the CPU."""
        real, fake = self.real[0].to(self.device), self.fake[0].to(self.device)
        refined, identity = self._refined(fake[None])[0], self.identify(real[None])[0]
        return {"fake": fake.cpu(), "refined": refined.cpu(), "real": real.cpu(), "identity": identity.cpu()}

    def show(self, step, log):
        """Write <step>_images.png, _spectra.png and _profiles.png, and one row of monitor.csv."""
        from utils import plots  # matplotlib is slow to import, and only the main process draws

        spectra = {name: SpectrumMean() for name in ("fake", "refined", "real")}
        distances = []
        for real_image in self._batches(self.real):
            spectra["real"].update(real_image)
        for fake_image in self._batches(self.fake):
            refined_image = self._refined(fake_image)
            spectra["fake"].update(fake_image)
            spectra["refined"].update(refined_image)
            distances.append(psnr(refined_image, fake_image).clamp_max(PSNR_CEILING).cpu())
        numbers = spectral_distances(spectra["real"], spectra["refined"])
        log.write(step, numbers | {"psnr": float(torch.cat(distances).mean())}, table="monitor")
        stem = self.folder / f"{step:06d}"
        pictures = {
            "images": plots.sample_figure(self.examples(), f"{stem}_images.png"),
            "spectra": plots.spectra_figure({name: mean.log_mag for name, mean in spectra.items()}, f"{stem}_spectra.png"),
            "profiles": plots.profile_figure({name: mean.profile for name, mean in spectra.items()}, f"{stem}_profiles.png"),
        }
        for name, picture in pictures.items():
            log.add_image(name, picture, step)
