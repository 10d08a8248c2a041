"""Training of a small discrete tokenizer, whose codes are then a pretraining target."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics import Metric

import mae_lightning
from mae_lightning.data import Batch
from mae_lightning.evaluation.wide import WideMean
from mae_lightning.models import DiscreteVAE, Normalization
from mae_lightning.tasks.task import Task
from mae_lightning.weights import CheckpointCard


class CodeUse(Metric):
    """Perplexity of the codes of a whole set: how many there would be if all were used alike.

    Args:
        num_codes: Size of the vocabulary.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(num_codes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Int64[Tensor, "batch row column"], valid: Bool[Tensor, "batch"]) -> None:
        """Counts the codes of valid images."""
        self.counts += torch.bincount(codes[valid].flatten(), minlength=len(self.counts))

    def compute(self) -> Tensor:
        """Exponential of the entropy."""
        perplexity: Tensor = torch.special.entr(self.counts / self.counts.sum()).sum().exp()
        return perplexity


class TokenizerTraining(Task):
    """Trains a :class:`DiscreteVAE` to reconstruct images from relaxed codes that become hard; see its docstring.

    Adam at ``base_lr x global_batch_size / 256``, warm-up and cosine a step. When training ends the run's folder has a
    ``tokenizer.safetensors`` for the target ``Tokens``.

    Args:
        stride: Side of the square behind one code, in pixels: the patch size for a target without resizing.
        num_codes: Size of the vocabulary.
        dim: Channels inside.
        temperature: Of the Gumbel-softmax at the end; it falls from 1, by the same factor every step.
        base_lr: Learning rate for a global batch of 256 images.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero.
        image_size: Height and width in pixels; linked from the data.
        num_channels: Channels of an image; linked from the data.
        mean: Mean of each channel, pixels in 0 to 1; linked from the data.
        std: Standard deviation of each channel; linked from the data.
        global_batch_size: Images an optimiser step over all devices; linked from the data.

    Raises:
        ValueError: The stride is not a power of 2, the images are no multiple of it, or the temperature is not above 0
            and at most 1.
    """

    def __init__(
        self,
        stride: int = 8,
        num_codes: int = 512,
        dim: int = 64,
        temperature: float = 1 / 16,
        base_lr: float = 1e-3,
        warmup_epochs: float = 1.0,
        *,
        image_size: tuple[int, int] = (112, 112),
        num_channels: int = 3,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        global_batch_size: int = 256,
    ) -> None:
        super().__init__()
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature {temperature:g} must be above 0 and at most 1")
        if image_size[0] % stride or image_size[1] % stride:
            height, width = image_size
            raise ValueError(f"images of {height} x {width} are no multiple of the tokenizer's stride {stride}")
        self.tokenizer = DiscreteVAE(num_channels, stride, num_codes, dim)
        self.normalize = Normalization(mean, std)
        self.image_size, self.temperature = image_size, temperature
        self.base_lr, self.warmup_epochs, self.global_batch_size = base_lr, warmup_epochs, global_batch_size
        self.origin = "from scratch"
        self.error, self.use = WideMean(), CodeUse(num_codes)

    def pixels(self, images: Tensor) -> Float[Tensor, "batch channel height width"]:
        """Images as the loader gives them, in 0 to 1."""
        return self.normalize.undo(self.normalize(images))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error from relaxed codes; rows marked invalid do not count."""
        progress = self.global_step / max(1, int(self.trainer.estimated_stepping_batches))
        losses = self.tokenizer.loss(self.pixels(batch["image"]), self.temperature**progress)
        valid = batch["valid"].float()
        loss: Tensor = (losses * valid).sum() / valid.sum().clamp(min=1)
        self.log_loss(loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Error of what the codes alone give back, and how many codes are in use."""
        images = self.pixels(batch["image"])
        codes = self.tokenizer.codes(images)
        hard = F.one_hot(codes, self.tokenizer.num_codes).movedim(-1, 1).to(images.dtype)
        error = (self.tokenizer.decode(hard) - images).square().mean(dim=(1, 2, 3))
        self.error.update(error, batch["valid"].float())
        self.use.update(codes, batch["valid"])

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole set."""
        error = self.error.compute()
        figures = {"loss": error, "psnr": -10 * torch.log10(error), "code_perplexity": self.use.compute()}
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=False, prog_bar=True)
        self.error.reset()
        self.use.reset()

    @torch.no_grad()
    def features(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """How often each code stands in an image."""
        codes = self.tokenizer.codes(self.pixels(images))
        return F.one_hot(codes, self.tokenizer.num_codes).float().mean(dim=(1, 2))

    def configure_model(self) -> None:
        """Nothing: a tokenizer is too small to be sharded.

        Raises:
            ValueError: The strategy wants it sharded.
        """
        if self.device_mesh is not None:
            raise ValueError("a tokenizer is too small to be sharded; use --config trainer/ddp")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam without decay; the schedule advances with every optimiser step."""
        return self.scheduled(torch.optim.Adam(self.parameters(), lr=self.lr))

    def card(self) -> CheckpointCard:
        """What a checkpoint of this model says of itself."""
        return CheckpointCard(
            objective="tokenizer",
            encoder={"stride": self.tokenizer.stride, "num_codes": self.tokenizer.num_codes, "dim": self.tokenizer.dim},
            decoder=None,
            target=None,
            image_size=self.image_size,
            num_channels=self.tokenizer.num_channels,
            mean=tuple(self.normalize.mean.flatten().tolist()),
            std=tuple(self.normalize.std.flatten().tolist()),
            package_version=mae_lightning.__version__,
        )

    def summary(self) -> dict[str, str]:
        """Rows of the table that is printed when training starts."""
        count = sum(parameter.numel() for parameter in self.tokenizer.parameters())
        return {
            "model": f"tokenizer of {self.tokenizer.num_codes} codes, stride {self.tokenizer.stride}",
            "parameters": f"{count / 1e6:.2f} M",
        }
