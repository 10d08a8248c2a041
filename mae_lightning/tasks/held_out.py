"""Figures on held-out images that compare between runs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from mae_lightning.evaluation.baselines import PositionMeanLoss, visible_mean
from mae_lightning.models import MaskedModel, MaskSampler, Normalization, PatchMask, RandomMasking, Target

PSNR_RATIO = 0.75
"""Share of patches hidden, uniformly at random, when the signal-to-noise ratio is measured."""


class HeldOutMetrics(nn.Module):
    """Masked loss, the trivial predictors' losses on the same masks, and the reconstruction's PSNR in raw pixels.

    Rows marked invalid do not count; sums add up over processes, so that the figures are those of the whole set. The
    best constant patch at each position is known in closed form for the squared error alone, and left out elsewhere.
    Losses compare between runs of one target, loss and mask alone.
    """

    position_mean: PositionMeanLoss | None

    def __init__(self, model: MaskedModel) -> None:
        super().__init__()
        patch_pixels = model.patch_size[0] * model.patch_size[1] * model.num_channels
        self.loss, self.loss_zero, self.loss_visible_mean = MeanMetric(), MeanMetric(), MeanMetric()
        is_squared = type(model.target).loss is Target.loss
        num_outputs = model.target.num_outputs(patch_pixels)
        self.position_mean = PositionMeanLoss(model.num_patches, num_outputs) if is_squared else None
        self.pixel_error = MeanMetric()

    def update(
        self,
        model: MaskedModel,
        normalize: Normalization,
        images: Float[Tensor, "batch channel height width"],
        noise: Float[Tensor, "batch patch"],
        valid: Bool[Tensor, "batch"],
        sampler: MaskSampler,
        mask_ratio: float,
    ) -> None:
        """Adds a batch of normalised images."""
        mask = sampler(noise, model.grid, mask_ratio)
        prediction = model.predict(images, mask).float()
        target = model.target(model.patches(images))
        self._update_losses(model, prediction, target, mask, valid)
        fixed = PatchMask.from_noise(noise, PSNR_RATIO)
        if not (isinstance(sampler, RandomMasking) and mask_ratio == PSNR_RATIO):
            prediction = model.predict(images, fixed).float()
        self._update_pixel_error(model, normalize, images, prediction, fixed, valid)

    def _update_losses(
        self,
        model: MaskedModel,
        prediction: Float[Tensor, "batch patch output"],
        target: Float[Tensor, "batch patch output"],
        mask: PatchMask,
        valid: Bool[Tensor, "batch"],
    ) -> None:
        def masked_loss(values: Tensor) -> Tensor:
            return model.target.loss(values, target).gather(1, mask.masked).mean(dim=1)

        visible = visible_mean(target, mask)[:, :1].expand_as(target)
        predictions = {self.loss: prediction, self.loss_zero: torch.zeros_like(target), self.loss_visible_mean: visible}
        for metric, values in predictions.items():
            metric.update(masked_loss(values), valid.float())
        if self.position_mean is not None:
            self.position_mean.update(target, mask.is_masked & valid.unsqueeze(1))

    def _update_pixel_error(
        self,
        model: MaskedModel,
        normalize: Normalization,
        images: Tensor,
        prediction: Tensor,
        mask: PatchMask,
        valid: Tensor,
    ) -> None:
        """Mean squared error of masked pixels in raw units; nothing of the masked truth helps the prediction."""
        truth = model.patches(images)
        pixels = model.target.to_pixels(prediction, truth, mask, model.grid, model.patch_size)
        error = normalize.undo(model.images(pixels)) - normalize.undo(images)
        per_patch = model.patches(error).square().mean(dim=2).gather(1, mask.masked).mean(dim=1)
        self.pixel_error.update(per_patch, valid.float())

    def compute(self) -> dict[str, Tensor]:
        """The figures by name; PSNR in dB against a peak of 1."""
        losses = {"loss": self.loss, "loss_zero": self.loss_zero, "loss_visible_mean": self.loss_visible_mean}
        figures: dict[str, Tensor] = {name: metric.compute() for name, metric in losses.items()}
        if self.position_mean is not None:
            figures["loss_position_mean"] = self.position_mean.compute().float()
        return figures | {"psnr": -10 * torch.log10(self.pixel_error.compute())}

    def reset(self) -> None:
        """Forgets what was added."""
        for metric in self.children():
            assert isinstance(metric, Metric)
            metric.reset()
