"""SimMIM pretraining of Swin (Xie et al. 2021, arXiv 2111.09886)."""

from collections.abc import Sequence

from mae_lightning.models import MaskSampler, SimMIM, SwinSize
from mae_lightning.optim import scaled_lr
from mae_lightning.tasks.masked import MaskedPretraining


class SimMIMPretraining(MaskedPretraining):
    """Trains a Swin to predict the pixels behind mask tokens: AdamW, linear lr scaling, warm-up and cosine a step.

    The learning rate is ``base_lr x global_batch_size / 512``. A patch that is hidden or seen as a whole is the square
    behind one token of the last stage: 32 pixels for the paper's encoders. The loss is of another kind than a masked
    autoencoder's, on patches of another size: the two do not compare, nor do their PSNR.

    Args:
        encoder: ``SIZE/PATCH`` such as ``swin-base/4``, a timm name ``swin_*``, or explicit sizes.
        sampler: How patches are chosen for masking; by default uniformly at random.
        mask_ratio: Share of the patches hidden from the encoder, their number rounded up: 22 of 36.
        base_lr: Learning rate for a global batch of 512 images.
        base_min_lr: Learning rate at the end of the cosine, for 512 images likewise, as in the released code.
        weight_decay: AdamW's decay, not applied to biases, norms, the mask token and relative position biases.
        betas: AdamW's decay rates of the first and second moment.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero.
        init_from: Checkpoint of this package whose weights to start from; relative position biases are resampled.
        image_size: Height and width in pixels; linked from the data.
        num_channels: Channels of an image; linked from the data.
        mean: Mean of each channel, pixels in 0 to 1; linked from the data.
        std: Standard deviation of each channel; linked from the data.
        global_batch_size: Images an optimiser step over all devices; linked from the data.
        seed: Seed of the mask noise; linked from the data.
    """

    objective = "simmim"
    title = "SimMIM"
    images_per_base_lr = 512

    def __init__(
        self,
        encoder: str | SwinSize = "swin-base/4",
        sampler: MaskSampler | None = None,
        mask_ratio: float = 0.6,
        base_lr: float = 2e-4,
        base_min_lr: float = 0.0,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_epochs: float = 10.0,
        init_from: str | None = None,
        *,
        image_size: tuple[int, int] = (192, 192),
        num_channels: int = 3,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        global_batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        super().__init__(
            SimMIM(encoder, image_size=image_size, num_channels=num_channels),
            encoder,
            sampler,
            mask_ratio=mask_ratio,
            base_lr=base_lr,
            weight_decay=weight_decay,
            betas=betas,
            warmup_epochs=warmup_epochs,
            init_from=init_from,
            mean=mean,
            std=std,
            global_batch_size=global_batch_size,
            seed=seed,
        )
        self.min_lr = scaled_lr(base_min_lr, global_batch_size, per=self.images_per_base_lr)
