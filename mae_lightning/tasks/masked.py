"""Masked pretraining: what masked autoencoders and SimMIM share."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

import mae_lightning
from mae_lightning.data import Batch, RandomResizedCropFlip, data_of
from mae_lightning.models import (
    MaskedModel,
    MaskSampler,
    Normalization,
    PatchMask,
    PatchPCA,
    RandomMasking,
    SwinSize,
    Tokens,
    ViTSize,
    patch_grid,
    patch_sums,
    sample_noise,
    step_flops,
)
from mae_lightning.optim import build_adamw, parameter_groups
from mae_lightning.tasks.device_crop import DeviceCropFlip
from mae_lightning.tasks.held_out import HeldOutMetrics
from mae_lightning.tasks.task import Task
from mae_lightning.weights import FLOPS_KEY, CheckpointCard, describe, load_pretrained

CROPS_APART = 2**40
"""Above any sample's place: what sets the masks of a sample's repeated crops apart."""

HELD_OUT_SEED = 0
"""Seed of the masks on held-out images: fixed for every run, so that their losses compare."""


class MaskedPretraining(Task):
    """Hides patches of images and trains a model to predict them.

    Number of steps, length of the schedule and of the warm-up follow from the trainer. Mask noise depends on seed,
    epoch and sample only, so neither the number of devices nor a resumed run changes a mask.

    Args:
        model: What predicts.
        encoder: The encoder as the user asked for it, for the checkpoint's card.
        sampler: How patches are chosen for masking; by default uniformly at random.
        mask_ratio: Share of the patches to hide; int(patches x (1 - ratio)) are kept.
        base_lr: Learning rate for a global batch of ``images_per_base_lr`` images.
        weight_decay: AdamW's decay, not applied to biases, norms and what the model names.
        betas: AdamW's decay rates of the first and second moment.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero.
        init_from: Checkpoint whose weights to start from.
        device_augmentation: Crops and flips training images on the device, to the model's size from whatever the data
            gives.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        global_batch_size: Images an optimiser step over all devices.
        seed: Seed of the mask noise.

    Attributes:
        objective: The word for it in checkpoints.
        title: The words for it in tables.
        flops_per_image: Of a step, once it is known; on the first process alone.
    """

    objective: ClassVar[str]
    title: ClassVar[str]
    model: MaskedModel
    flops_per_image: int | None = None

    def __init__(
        self,
        model: MaskedModel,
        encoder: str | ViTSize | SwinSize,
        sampler: MaskSampler | None,
        *,
        mask_ratio: float,
        base_lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        warmup_epochs: float,
        init_from: str | None,
        device_augmentation: DeviceCropFlip | None = None,
        mean: Sequence[float],
        std: Sequence[float],
        global_batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.encoder_name, self.model = encoder, model
        self.sampler = sampler or RandomMasking()
        self.normalize = Normalization(mean, std)
        if isinstance(model.target, Tokens):
            model.target.show_pixels(self.normalize.undo)
        self.mask_ratio, self.device_augmentation = mask_ratio, device_augmentation
        first = torch.zeros(1, dtype=torch.int64)
        self.num_kept = self.draw_mask(first, seed=seed, epoch=0).kept.shape[1]  # fails here, before any data is read
        self.base_lr, self.weight_decay, self.betas, self.warmup_epochs = base_lr, weight_decay, betas, warmup_epochs
        self.global_batch_size, self.seed = global_batch_size, seed
        self.held_out = HeldOutMetrics(model)
        self.origin = "from scratch" if init_from is None else load_pretrained(model, init_from)

    # ---------------------------------------------------------------- before training

    def setup(self, stage: str) -> None:
        """Counts what a step costs, before the model is sharded and leaves the host.

        Raises:
            ValueError: The data crop what the device is to crop.
        """
        super().setup(stage)
        crop = getattr(data_of(self.trainer), "augmentation", None)
        if stage == "fit" and self.device_augmentation is not None and isinstance(crop, RandomResizedCropFlip):
            crops = type(crop).__name__
            raise ValueError(
                f"data.augmentation {crops} and model.device_augmentation would both crop: set the former to"
                " mae_lightning.data.NoAugmentation, as variants/device_augmentation does"
            )
        if stage == "fit" and self.global_rank == 0:
            self.flops_per_image = step_flops(self.model, self.num_kept)

    def check_image_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Refuses training images of sizes that the model or its masks cannot take.

        Raises:
            ValueError: They cannot; says why.
        """
        if self.device_augmentation is not None:  # they end at the model's size
            height, width = self.model.image_size
            for tall, wide in sizes:
                if tall < height or wide < width:
                    raise ValueError(
                        f"data.image_size_by_epoch has images of {tall} x {wide}, which model.device_augmentation would"
                        f" enlarge to the model's {height} x {width}: leave one of the two out, or take larger images"
                    )
            return
        objection = self.model.objection_to_sizes()
        if objection is not None:
            raise ValueError(f"data.image_size_by_epoch does not go with this model: {objection}")
        first = torch.zeros(1, dtype=torch.int64)
        for size in sizes:
            self.draw_mask(first, seed=self.seed, epoch=0, grid=patch_grid(size, self.model.patch_size))

    def on_fit_start(self) -> None:
        """Fits a target's principal components on augmented training crops, unless the checkpoint had them."""
        target = self.model.target
        if isinstance(target, PatchPCA) and not target.is_fitted:
            sums = [
                self.trainer.strategy.reduce(value, reduce_op="sum") for value in self._patch_sums(target.num_images)
            ]
            target.fit(*sums)

    @torch.no_grad()
    def _patch_sums(self, num_images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the first training crops of the run: this process's part, in whole optimiser steps."""
        data = data_of(self.trainer)
        assert data is not None
        loader = data.train_dataloader()
        steps = -(-num_images // self.global_batch_size)
        batches = islice(loader, min(len(loader), steps * int(self.trainer.accumulate_grad_batches)))
        on_device = (move_data_to_device(batch, self.device) for batch in batches)
        images = (self.training_images(batch, self.current_epoch)[batch["valid"]] for batch in on_device)
        parts = [patch_sums(self.model.patches(part)) for part in images]
        loader.close()
        count, total, products = (torch.stack(sums).sum(dim=0) for sums in zip(*parts, strict=True))
        return count, total, products

    # ---------------------------------------------------------------- steps

    def draw_mask(
        self, index: Int64[Tensor, "batch"], *, seed: int, epoch: int, grid: tuple[int, int] | None = None
    ) -> PatchMask:
        """The masks of these samples in this epoch, whatever the batch, device or process they are in.

        Args:
            index: The samples; crops of one sample beyond its first by :func:`crop_index`.
            seed: Of the run.
            epoch: From 0.
            grid: Rows and columns of patches; by default the model's.
        """
        rows, columns = grid or self.model.grid
        noise = sample_noise(index, rows * columns, seed, epoch)
        return self.sampler(noise, (rows, columns), self.mask_ratio)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's loss, logged."""
        loss = self.loss(batch, self.current_epoch)
        self.log_loss(loss)
        return loss

    def training_images(self, batch: Batch, epoch: int) -> Float[Tensor, "batch channel height width"]:
        """What the model sees of a batch in an epoch: normalised, and augmented where the device does it."""
        images, augment = batch["image"], self.device_augmentation
        if augment is not None:
            images = augment(images, crop_index(batch), self.model.image_size, seed=self.seed, epoch=epoch)
        normalised: Tensor = self.normalize(images)
        return normalised

    def loss(self, batch: Batch, epoch: int) -> Float[Tensor, ""]:
        """The loss of a batch in an epoch; rows marked invalid do not count."""
        images = self.training_images(batch, epoch)
        grid = patch_grid((images.shape[2], images.shape[3]), self.model.patch_size)
        mask = self.draw_mask(crop_index(batch), seed=self.seed, epoch=epoch, grid=grid)
        output = self.model(images, mask)
        valid = batch["valid"].float()
        loss: Tensor = (output.loss_per_patch.mean(dim=1) * valid).sum() / valid.sum().clamp(min=1)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Held-out loss under masks that depend on the sample alone, and the trivial predictors' beside it."""
        images = self.normalize(batch["image"])
        noise = sample_noise(batch["index"], self.model.num_patches, HELD_OUT_SEED, 0)
        self.held_out.update(self.model, self.normalize, images, noise, batch["valid"], self.sampler, self.mask_ratio)

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole validation set, each sample counted once."""
        for name, value in self.held_out.compute().items():
            self.log(f"val/{name}", value, prog_bar=name == "loss")
        self.held_out.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "batch dim"]:
        """Features of the frozen encoder: the mean patch token of each image, all patches seen."""
        return self.features(batch["image"])

    @torch.no_grad()
    def features(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """Mean patch token after the final norm, all patches seen; images as the loader gives them."""
        return self.model.features(self.normalize(images))

    # ---------------------------------------------------------------- optimisation

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with the papers' groups; the schedule advances with every optimiser step."""
        groups = parameter_groups(self.model, self.weight_decay, self.model.no_weight_decay())
        return self.scheduled(build_adamw(groups, lr=self.lr, betas=self.betas, device=self.device))

    # ---------------------------------------------------------------- what it is

    def card(self) -> CheckpointCard:
        """What a checkpoint of this model says of itself."""
        encoder = self.encoder_name
        return CheckpointCard(
            objective=self.objective,
            encoder=encoder if isinstance(encoder, str) else asdict(encoder),
            decoder=describe(self.model.decoder),
            target=describe(self.model.target),
            masked_model=self.model.settings(),
            image_size=self.model.image_size,
            num_channels=self.model.num_channels,
            mean=tuple(self.normalize.mean.flatten().tolist()),
            std=tuple(self.normalize.std.flatten().tolist()),
            package_version=mae_lightning.__version__,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the card and the cost of a step."""
        super().on_save_checkpoint(checkpoint)
        if self.flops_per_image is not None:
            checkpoint[FLOPS_KEY] = self.flops_per_image

    def summary(self) -> dict[str, str]:
        """Rows of the table that is printed when training starts."""
        model = self.model
        encoder = sum(p.numel() for p in model.encoder.parameters())
        decoder = sum(p.numel() for p in model.parameters()) - encoder
        height, width = model.patch_size
        rows = {
            "model": f"{self.title}, encoder {self.encoder_name}",
            "weights": self.origin,
            "parameters": f"{encoder / 1e6:.2f} M encoder, {decoder / 1e6:.2f} M decoder",
            "masks": f"{self.num_kept} of {model.num_patches} patches of {height} x {width} kept"
            f" ({type(self.sampler).__name__}, ratio {self.mask_ratio:g})",
            "target": f"{type(model.target).__name__}, loss on {model.loss_on} patches",
        }
        if self.flops_per_image is not None:
            rows["compute"] = f"{self.flops_per_image / 1e9:.3g} GFLOP an image, forward and backward"
        return rows

    def results(self, figures: dict[str, float]) -> dict[str, str]:
        """The held-out loss over the lower of the predictors' that are not fitted on the images they are judged on."""
        trivial = [figures[name] for name in ("val/loss_zero", "val/loss_visible_mean") if name in figures]
        if not trivial or min(trivial) == 0:  # images of one colour, which need no predictor
            return {}
        return {"loss / zero or visible mean": f"{figures['val/loss'] / min(trivial):.3f}"}


def crop_index(batch: Batch) -> Int64[Tensor, "batch"]:
    """What the masks are drawn from: the sample, and which of its crops it is, where there are several."""
    return batch["index"] + CROPS_APART * batch["repeat"] if "repeat" in batch else batch["index"]
