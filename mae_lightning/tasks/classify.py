"""Supervised classification: from scratch, fine-tuned in full or in part, or a probe of a frozen encoder."""

from collections.abc import Sequence
from dataclasses import asdict
from random import Random
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

import mae_lightning
from mae_lightning.data import Batch
from mae_lightning.data.mixing import Mixing
from mae_lightning.data.plan import draw
from mae_lightning.evaluation.accuracy import ClassificationMetrics
from mae_lightning.models import (
    BlockNorm,
    Classifier,
    Normalization,
    Pool,
    Positions,
    PositionsAt,
    SwinSize,
    TrainableBlocks,
    ViTSize,
    build_classifier,
    has_drop_path,
    no_weight_decay,
    train_last_blocks,
)
from mae_lightning.optim import build_adamw, build_lars, layerwise_groups
from mae_lightning.tasks.task import Task
from mae_lightning.weights import CheckpointCard, read_encoder


class Classification(Task):
    """Trains a timm ViT or Swin on labelled images with soft targets; the defaults are those of fine-tuning.

    Rate, steps and schedule follow from the data and the trainer as in pretraining. What is frozen stays in eval mode.
    A setting that the model cannot honour is an error.

    Args:
        encoder: ``SIZE/PATCH`` such as ``base/16`` or ``swin-base/4``, a timm name (plain ``vit_*`` or ``swin_*``), or
            explicit sizes.
        pool: The feature: mean patch token, class token, or a learned query attending over the patch tokens.
        trainable_blocks: ``all``; 0 trains the head alone; 0.5 the last block's second norm and MLP, 1 and more that
            many last blocks, always with final norm and head. Mean pooling is followed by a fresh norm; at 0 the
            pretrained norm stands before it.
        batch_norm: A BatchNorm without affine parameters before the head, as in linear probing.
        head_std: Standard deviation of the fresh head.
        drop_path: Chance that the last block is skipped; falls linearly to zero at the first.
        positions: Position embedding of a ViT: by default learned from a sin-cos start; ``none``, ``learned_1d``,
            ``learned_2d``, ``relative``, or fixed ``sincos_1d`` and ``sincos_2d`` (ViT, Table 8).
        positions_at: Where it is added: at the ``stem``, before ``every_layer``, or there the same.
        block_norm: Norm inside a ViT's blocks: ``layer``, or ``batch`` over images and tokens.
        label_smoothing: Share of the target spread over all classes.
        mixup: Alpha of Mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        optimizer: AdamW, or LARS that scales also without weight decay.
        base_lr: Learning rate for a global batch of 256 images.
        min_lr: Learning rate at the end of the cosine.
        layer_decay: Rate of a layer over that of the layer above it; 1 for one rate.
        weight_decay: Not applied to biases, norms, positions and class token.
        betas: AdamW's decay rates of the first and second moment.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero.
        confusion_matrix: Whether to count which class is taken for which.
        init_from: Checkpoint whose encoder to start from: of this package, or in the official layout.
        image_size: Height and width in pixels; linked from the data.
        num_channels: Channels of an image; linked from the data.
        mean: Mean of each channel, pixels in 0 to 1; linked from the data.
        std: Standard deviation of each channel; linked from the data.
        num_classes: Number of classes; linked from the data.
        class_names: Names of the classes; linked from the data.
        global_batch_size: Images an optimiser step over all devices; linked from the data.
        seed: Seed of the mixing; linked from the data.

    Raises:
        ValueError: The data has no labels, or the model cannot honour a setting.
    """

    model: Classifier

    def __init__(
        self,
        encoder: str | ViTSize | SwinSize = "base/16",
        pool: Pool = "mean",
        trainable_blocks: TrainableBlocks = "all",
        batch_norm: bool = False,
        head_std: float = 2e-5,
        drop_path: float = 0.0,
        positions: Positions = "learned_from_sincos",
        positions_at: PositionsAt = "stem",
        block_norm: BlockNorm = "layer",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        optimizer: Literal["adamw", "lars"] = "adamw",
        base_lr: float = 5e-4,
        min_lr: float = 0.0,
        layer_decay: float = 1.0,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_epochs: float = 5,
        confusion_matrix: bool = False,
        init_from: str | None = None,
        *,
        image_size: tuple[int, int] = (224, 224),
        num_channels: int = 3,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        global_batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes is None:
            raise ValueError(
                "classification needs labels, and the data has none; give labelled data, or pretrain on it"
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing:g} must be at least 0 and below 1")
        self.encoder_name, self.trainable_blocks = encoder, trainable_blocks
        self.recipe = {
            "num_classes": num_classes,
            "pool": pool,
            "norm_after_pool": trainable_blocks != 0,
            "batch_norm": batch_norm,
            "positions": positions,
            "positions_at": positions_at,
            "block_norm": block_norm,
        }
        self.model = build_classifier(
            encoder,
            image_size=image_size,
            num_channels=num_channels,
            head_std=head_std,
            drop_path=drop_path,
            **self.recipe,  # type: ignore[arg-type]  # one dictionary of several types
        )
        self.trained = train_last_blocks(self.model, trainable_blocks)
        _check_drop_path(self.trained, drop_path)
        self.normalize = Normalization(mean, std)
        self.image_size, self.num_channels, self.num_classes = image_size, num_channels, num_classes
        self.class_names = None if class_names is None else tuple(class_names)
        self.mixing, self.label_smoothing = Mixing(mixup, cutmix), label_smoothing
        self.optimizer_name, self.betas = optimizer, betas
        self.layer_decay, self.weight_decay = layer_decay, weight_decay
        self.base_lr, self.min_lr, self.warmup_epochs = base_lr, min_lr, warmup_epochs
        self.global_batch_size, self.seed = global_batch_size, seed
        self.metrics = ClassificationMetrics(num_classes, confusion_matrix=confusion_matrix)
        self.origin = "scratch" if init_from is None else _start(self.model, init_from, positions)
        if optimizer == "lars" and layer_decay != 1:
            raise ValueError(
                f"layer_decay {layer_decay:g} is not for lars, which sets its own rate a layer; set it to 1"
            )
        self.parameter_groups()  # a layer decay that reaches nothing fails here, before any data is read

    # ---------------------------------------------------------------- steps

    def train(self, mode: bool = True) -> "Classification":
        """Sets the mode of what trains; what is frozen stays in eval mode."""
        super().train(mode)
        if mode:
            self.model.eval()
            for part in self.trained:
                part.train()
        return self

    def forward(self, images: Tensor) -> Float[Tensor, "batch class"]:
        """Logits of images as the loader gives them."""
        logits: Tensor = self.model(self.normalize(images))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Soft-target cross-entropy of the mixed batch; rows marked invalid do not count."""
        valid = batch["valid"] & (batch["label"] >= 0)
        random = Random(draw(self.seed, self.current_epoch, batch_idx, self.global_rank))
        targets = self.soft_targets(batch["label"])
        images, targets = self.mixing(self.normalize(batch["image"]), targets, valid, random)
        losses = F.cross_entropy(self.model(images).float(), targets, reduction="none")
        loss: Tensor = (losses * valid).sum() / valid.sum().clamp(min=1)
        self.log_loss(loss)
        return loss

    def soft_targets(self, labels: Int64[Tensor, "batch"]) -> Float[Tensor, "batch class"]:
        """The labels' one-hot rows, smoothed; rows without a label point nowhere that counts."""
        hard = F.one_hot(labels.clamp(min=0), self.num_classes).float()
        return hard * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts the batch; each sample once, whatever the number of processes."""
        self.metrics.update(self(batch["image"]), batch["label"], batch["valid"])

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the whole set."""
        self._log_figures("val")

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        """Logs the figures of the whole set."""
        self._log_figures("test")

    def _log_figures(self, split: str) -> None:
        figures = {f"{split}/{name}": value for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        self.log_dict(figures, sync_dist=False, prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "batch class"]:
        """Probability of each class."""
        logits: Tensor = self(batch["image"])
        return logits.float().softmax(dim=1)

    @torch.no_grad()
    def features(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """What the head sees."""
        tokens = self.model.forward_features(self.normalize(images))
        features: Tensor = self.model.forward_head(tokens, pre_logits=True)
        return features

    # ---------------------------------------------------------------- optimisation

    def parameter_groups(self) -> list[dict[str, object]]:
        """AdamW's groups: one a learning rate and weight decay."""
        return layerwise_groups(
            self.model,
            lr=self.lr,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            no_decay=no_weight_decay(self.model),
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW or LARS; the schedule advances with every optimiser step."""
        if self.optimizer_name == "lars":
            return self.scheduled(build_lars(self.model.parameters(), lr=self.lr, weight_decay=self.weight_decay))
        groups = self.parameter_groups()
        return self.scheduled(build_adamw(groups, lr=self.lr, betas=self.betas, device=self.device))

    # ---------------------------------------------------------------- what it is

    def card(self) -> CheckpointCard:
        """What a checkpoint of this model says of itself."""
        encoder = self.encoder_name
        return CheckpointCard(
            objective="classification",
            encoder=encoder if isinstance(encoder, str) else asdict(encoder),
            decoder=None,
            target=None,
            image_size=self.image_size,
            num_channels=self.num_channels,
            mean=tuple(self.normalize.mean.flatten().tolist()),
            std=tuple(self.normalize.std.flatten().tolist()),
            package_version=mae_lightning.__version__,
            classifier=self.recipe,
            class_names=self.class_names,
        )

    def summary(self) -> dict[str, str]:
        """Rows of the table that is printed when training starts."""
        total = sum(p.numel() for p in self.model.parameters())
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        blocks = self.trainable_blocks if self.trainable_blocks == "all" else f"{self.trainable_blocks:g}"
        rules = [
            f"smoothing {self.label_smoothing:g}",
            f"mixup {self.mixing.mixup:g}",
            f"cutmix {self.mixing.cutmix:g}",
        ]
        return {
            "model": f"classifier of {self.num_classes}, encoder {self.encoder_name}, {self.recipe['pool']} pooling",
            "weights": self.origin,
            "parameters": f"{total / 1e6:.2f} M, {trained / 1e6:.3f} M of them train (blocks: {blocks})",
            "targets": ", ".join(rules),
            "optimiser": f"{self.optimizer_name}, weight decay {self.weight_decay:g}, layer decay {self.layer_decay:g}",
        }

    def results(self, figures: dict[str, float]) -> dict[str, str]:
        """How the figures were chosen."""
        return {"selected on": "nothing: the last epoch's weights"}


def _check_drop_path(trained: list[torch.nn.Module], drop_path: float) -> None:
    if drop_path and not has_drop_path(trained):
        raise ValueError(f"drop_path {drop_path:g} drops nothing: no block that trains has a path to drop; set it to 0")


def _start(model: Classifier, init_from: str, positions: Positions) -> str:
    """Loads an encoder whose positions are those asked for, or are to be learned on."""
    encoder = read_encoder(init_from)
    classifier = encoder.card and encoder.card.classifier
    brought = classifier.get("positions", "learned_from_sincos") if classifier else "sincos_2d"
    if positions not in ("learned_from_sincos", brought):
        raise ValueError(
            f"{init_from} brings positions '{brought}', which would replace '{positions}'; leave out one of the two"
        )
    return encoder.load_into(model)
