"""Reconstructions of fixed held-out images while training goes on."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.data import data_of
from mae_lightning.models import sample_noise
from mae_lightning.pictures import draw_sheet, reconstruct
from mae_lightning.tasks import MaskedPretraining
from mae_lightning.tasks.masked import HELD_OUT_SEED
from mae_lightning.tracking import log_picture
from mae_lightning.tracking.unfailing import Unfailing


class ReconstructionPictures(Callback):
    """Draws the same held-out images under the same masks at each validation, into the run's folder and to W&B.

    Args:
        folder: Where the PNG files go.
        num_images: Images on a sheet, spread evenly over the held-out set.
    """

    def __init__(self, folder: Path, num_images: int = 8) -> None:
        self.folder, self.num_images = folder, num_images
        self._unfailing = Unfailing("drawing pictures")

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, unless this is the sanity check before training; every process computes, the first one writes."""
        assert isinstance(pl_module, MaskedPretraining)
        data = data_of(trainer)
        can_be_drawn = bool(pl_module.model.target.pixel_modes)
        if trainer.sanity_checking or not can_be_drawn or data is None:
            return
        places = data.sources["val"].manifest.place
        batch = data.samples("val", places[spread_evenly(len(places), self.num_images)].tolist())
        images = pl_module.normalize(batch["image"].to(pl_module.device))
        noise = sample_noise(batch["index"].to(pl_module.device), pl_module.model.num_patches, HELD_OUT_SEED, 0)
        mask = pl_module.sampler(noise, pl_module.model.grid, pl_module.mask_ratio)
        drawn = reconstruct(pl_module.model, pl_module.normalize, images, mask)
        if not trainer.is_global_zero:
            return
        path = self.folder / f"reconstructions-step{trainer.global_step:07d}.png"
        share = mask.masked.shape[1] / pl_module.model.num_patches
        caption = f"{share:.0%} of patches masked, step {trainer.global_step}; pixels from {drawn.mode}"
        with self._unfailing:
            draw_sheet(drawn.columns(), path, caption)
            log_picture(trainer.loggers, "val/reconstructions", path, trainer.global_step)


def spread_evenly(num_samples: int, num_chosen: int) -> list[int]:
    """Places spread evenly over a data set, the first one included; all of them if there are fewer."""
    num_chosen = min(num_samples, num_chosen)
    return [place * num_samples // num_chosen for place in range(num_chosen)]
