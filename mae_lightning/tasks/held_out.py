"""Figures on held-out images that compare between runs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchmetrics import Metric

from mae_lightning.evaluation.baselines import PositionMeanLoss, visible_mean
from mae_lightning.evaluation.wide import WideMean
from mae_lightning.models import MaskedModel, MaskSampler, Normalization, PatchMask, RandomMasking, Target, Tokens

PSNR_RATIO = 0.75
"""Share of patches hidden, uniformly at random, when the signal-to-noise ratio is measured."""


class HeldOutMetrics(nn.Module):
    """Masked loss, the trivial predictors' losses on the same masks, and the reconstruction's PSNR in raw pixels.

    Rows marked invalid do not count; sums add up over processes, so that the figures are those of the whole set. The
    best constant patch at each position is known in closed form for the squared error alone, and left out elsewhere;
    codes have no mean patch; a target without a way back to pixels, and a grid of fewer than 4 patches, no PSNR. Zero
    logits are all codes alike.
    Losses compare between runs of one target, loss and mask alone.
    """

    position_mean: PositionMeanLoss | None

    def __init__(self, model: MaskedModel) -> None:
        super().__init__()
        patch_pixels = model.patch_size[0] * model.patch_size[1] * model.num_channels
        self.loss, self.loss_zero = WideMean(), WideMean()
        self.loss_visible_mean = None if isinstance(model.target, Tokens) else WideMean()
        is_squared = type(model.target).loss is Target.loss
        num_outputs = model.target.num_outputs(patch_pixels)
        self.position_mean = PositionMeanLoss(model.num_patches, num_outputs) if is_squared else None
        shows_any = int(model.num_patches * (1 - PSNR_RATIO)) > 0
        self.pixel_error = WideMean() if model.target.pixel_modes and shows_any else None

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
        """Adds a batch of normalised images; as in training, the model alone runs in 16 bits."""
        mask = sampler(noise, model.grid, mask_ratio)
        prediction = model.predict(images, mask).float()
        with torch.autocast(images.device.type, enabled=False):
            target = model.target(model.patches(images.float()))
            self._update_losses(model, prediction, target, mask, valid)
        if self.pixel_error is None:
            return
        fixed = PatchMask.from_noise(noise, PSNR_RATIO)
        if type(sampler) is not RandomMasking or mask_ratio != PSNR_RATIO:  # a sampler derived from it draws others
            prediction = model.predict(images, fixed).float()
        with torch.autocast(images.device.type, enabled=False):
            error = _pixel_error(model, normalize, images.float(), prediction, fixed)
            self.pixel_error.update(error, valid.float())

    def _update_losses(
        self,
        model: MaskedModel,
        prediction: Float[Tensor, "batch patch output"],
        target: Tensor,
        mask: PatchMask,
        valid: Bool[Tensor, "batch"],
    ) -> None:
        def masked_loss(values: Tensor) -> Tensor:
            return model.target.loss(values, target).gather(1, mask.masked).mean(dim=1)

        predictions = {self.loss: prediction, self.loss_zero: torch.zeros_like(prediction)}
        if self.loss_visible_mean is not None:
            predictions[self.loss_visible_mean] = visible_mean(target, mask)[:, :1].expand_as(target)
        for metric, values in predictions.items():
            metric.update(masked_loss(values), valid.float())
        if self.position_mean is not None:
            self.position_mean.update(target, mask.is_masked & valid.unsqueeze(1))

    def compute(self) -> dict[str, Tensor]:
        """The figures by name; PSNR in dB against a peak of 1."""
        figures: dict[str, Tensor] = {"loss": self.loss.compute(), "loss_zero": self.loss_zero.compute()}
        if self.loss_visible_mean is not None:
            figures["loss_visible_mean"] = self.loss_visible_mean.compute()
        if self.position_mean is not None:
            figures["loss_position_mean"] = self.position_mean.compute().float()
        if self.pixel_error is not None:
            figures["psnr"] = -10 * torch.log10(self.pixel_error.compute())
        return figures

    def reset(self) -> None:
        """Forgets what was added."""
        for metric in self.children():
            assert isinstance(metric, Metric)
            metric.reset()


def _pixel_error(
    model: MaskedModel, normalize: Normalization, images: Tensor, prediction: Tensor, mask: PatchMask
) -> Float[Tensor, "batch"]:
    """Mean squared error of masked pixels in raw units; nothing of the masked truth helps the prediction."""
    truth = model.patches(images)
    pixels = model.target.to_pixels(prediction, truth, mask, model.grid, model.patch_size)
    error = normalize.undo(model.images(pixels)) - normalize.undo(images)
    return model.patches(error).square().mean(dim=2).gather(1, mask.masked).mean(dim=1)
