"""Masked autoencoder pretraining (He et al. 2021, arXiv 2111.06377)."""

from collections.abc import Sequence
from typing import Literal

from mae_lightning.models import Decoder, MaskedAutoencoder, MaskSampler, Target, ViTSize
from mae_lightning.tasks.device_crop import DeviceCropFlip
from mae_lightning.tasks.masked import MaskedPretraining


class MAEPretraining(MaskedPretraining):
    """Trains a masked autoencoder: AdamW, linear lr scaling, warm-up and half-cycle cosine a step (paper Table 8).

    The learning rate is ``base_lr x global_batch_size / 256``.

    Example::

        from lightning.pytorch import Trainer
        from mae_lightning.data import ShardDataModule
        from mae_lightning.tasks import MAEPretraining

        data = ShardDataModule("fashion_mnist:train", image_size=28, global_batch_size=64)
        owned = {name: getattr(data, name) for name in ("image_size", "num_channels", "mean", "std", "seed")}
        task = MAEPretraining("nano/4", global_batch_size=64, warmup_epochs=0.0, **owned)
        Trainer(max_steps=2, logger=False, enable_checkpointing=False).fit(task, data)

    Args:
        encoder: ``SIZE/PATCH`` such as ``base/16``, a timm name, or explicit sizes.
        decoder: Decoder over visible and mask tokens; by default the paper's 8 blocks of width 512 with 16 heads.
        target: What masked patches are compared with; by default pixels normalised by their patch.
        sampler: How patches are chosen for masking; by default uniformly at random.
        mask_ratio: Share of the patches hidden from the encoder; int(patches x (1 - ratio)) are kept.
        loss_on: Whether the loss counts masked patches only, or all of them (ablation).
        mask_token_in_encoder: Whether the encoder sees mask tokens in place of the hidden patches (Table 1c); ``bert``
            for BERT's 80 % mask tokens, 10 % random patches, 10 % unchanged.
        base_lr: Learning rate for a global batch of 256 images.
        weight_decay: AdamW's decay, not applied to biases and norms.
        betas: AdamW's decay rates of the first and second moment.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero.
        init_from: Checkpoint whose weights to start from: of this package, or in the official layout.
        device_augmentation: Crops and flips training images on the device, to the model's size from whatever the data
            gives; the data then should not crop at random.
        image_size: Height and width in pixels; linked from the data.
        num_channels: Channels of an image; linked from the data.
        mean: Mean of each channel, pixels in 0 to 1; linked from the data.
        std: Standard deviation of each channel; linked from the data.
        global_batch_size: Images an optimiser step over all devices; linked from the data.
        seed: Seed of the mask noise; linked from the data.
    """

    objective = "mae"
    title = "masked autoencoder"

    def __init__(
        self,
        encoder: str | ViTSize = "base/16",
        decoder: Decoder | None = None,
        target: Target | None = None,
        sampler: MaskSampler | None = None,
        mask_ratio: float = 0.75,
        loss_on: Literal["masked", "all"] = "masked",
        mask_token_in_encoder: bool | Literal["bert"] = False,
        base_lr: float = 1.5e-4,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.95),
        warmup_epochs: float = 40.0,
        init_from: str | None = None,
        device_augmentation: DeviceCropFlip | None = None,
        *,
        image_size: tuple[int, int] = (224, 224),
        num_channels: int = 3,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        global_batch_size: int = 4096,
        seed: int = 0,
    ) -> None:
        model = MaskedAutoencoder(
            encoder,
            decoder,
            target,
            image_size=image_size,
            num_channels=num_channels,
            loss_on=loss_on,
            mask_token_in_encoder=mask_token_in_encoder,
        )
        super().__init__(
            model,
            encoder,
            sampler,
            mask_ratio=mask_ratio,
            base_lr=base_lr,
            weight_decay=weight_decay,
            betas=betas,
            warmup_epochs=warmup_epochs,
            init_from=init_from,
            device_augmentation=device_augmentation,
            mean=mean,
            std=std,
            global_batch_size=global_batch_size,
            seed=seed,
        )
