"""What pretraining and classification share: lr after the batch size, one schedule, a card in every checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from mae_lightning.data import data_of
from mae_lightning.models import repeated_blocks
from mae_lightning.optim import scaled_lr, warmup_cosine
from mae_lightning.weights import CARD_KEY, CheckpointCard


class Task(LightningModule, ABC):
    """A LightningModule whose rates, steps and schedule follow from the global batch and the trainer.

    Attributes:
        model: What is trained.
        base_lr: Learning rate for a global batch of ``images_per_base_lr`` images.
        images_per_base_lr: 256 in the papers; SimMIM states its rates per 512.
        min_lr: The learning rate at the end of the cosine.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero; none in a trial of a few batches.
        origin: Where the weights come from, in words.
        global_batch_size: Images an optimiser step over all devices.
        step_loss: Of the last optimiser step, this process's part.
        gradient_norm: Of the last optimiser step, before clipping, over all processes.
    """

    model: nn.Module
    base_lr: float
    images_per_base_lr: int = 256
    min_lr: float = 0.0
    warmup_epochs: float
    global_batch_size: int
    origin: str

    def __init__(self) -> None:
        super().__init__()
        self._losses: list[Tensor] = []
        self.step_loss = self.gradient_norm = torch.zeros(())

    # ---------------------------------------------------------------- before training

    def setup(self, stage: str) -> None:
        """Refuses data whose images change their size in training, where the model does not follow."""
        data = data_of(self.trainer)
        if stage == "fit" and data is not None and data.image_size_by_epoch:
            self.check_image_sizes(data.image_size_by_epoch.values())

    def check_image_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Refuses training images of other sizes than the model was built for.

        Raises:
            ValueError: Always, unless a task can do better.
        """
        raise ValueError(f"data.image_size_by_epoch: {type(self).__name__} trains on images of one size; leave it out")

    # ---------------------------------------------------------------- over processes

    def configure_model(self) -> None:
        """Shards each block, and the model around them, where the strategy wants it (FSDP2)."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for block in repeated_blocks(self.model):
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        if hasattr(self.model, "features"):  # a way in beside forward
            register_fsdp_forward_method(self.model, "features")

    # ---------------------------------------------------------------- optimisation

    @property
    def lr(self) -> float:
        """The peak learning rate in use."""
        return scaled_lr(self.base_lr, self.global_batch_size, per=self.images_per_base_lr)

    @property
    def lr_rule(self) -> str:
        """The same, and how it came about, for the run's table."""
        return (
            f"{self.lr:.3g} = {self.base_lr:.3g} x {self.global_batch_size} / {self.images_per_base_lr},"
            f" {self.warmup_epochs:g} epochs of warm-up, cosine to {self.min_lr:g}"
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch; the accumulation groups of an epoch are whole."""
        self.trainer.fit_loop.setup_data()  # it counts its batches only then
        return int(self.trainer.num_training_batches) // int(self.trainer.accumulate_grad_batches)

    def scheduled(self, optimizer: torch.optim.Optimizer) -> OptimizerLRSchedulerConfig:
        """The optimiser with warm-up and half-cycle cosine over the whole run, advanced with every optimiser step.

        Raises:
            ValueError: The rate would rise to its last value.
        """
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr {self.min_lr:g} is above the peak of {self.lr:.3g} that base_lr {self.base_lr:g} gives for"
                f" {self.global_batch_size} images; set it below"
            )
        is_trial = bool(getattr(self.trainer, "fast_dev_run", False))  # set outside of the constructor: unknown to mypy
        scheduler = warmup_cosine(
            optimizer,
            warmup_steps=0 if is_trial else round(self.warmup_epochs * self.steps_per_epoch),
            total_steps=int(self.trainer.estimated_stepping_batches),
            min_lr_ratio=self.min_lr / self.lr,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def log_loss(self, loss: Float[Tensor, ""]) -> None:
        """Logs the mean loss of an optimiser step, over all its micro-batches and devices."""
        self._losses.append(loss.detach())
        self.step_loss = torch.stack(self._losses).mean()
        self.log("train/loss", self.step_loss, prog_bar=True, sync_dist=True)
        if not self.trainer.fit_loop._should_accumulate():
            self._losses.clear()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Logs the gradient's norm and the greatest learning rate, without waiting for the device."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        self.gradient_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.log("train/gradient_norm", self.gradient_norm)
        self.log("train/lr", max(group["lr"] for group in optimizer.param_groups))

    # ---------------------------------------------------------------- what it is

    @abstractmethod
    def features(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        """Features of the encoder without gradients; images as the loader gives them."""

    @abstractmethod
    def card(self) -> CheckpointCard:
        """What a checkpoint of this model says of itself."""

    @abstractmethod
    def summary(self) -> dict[str, str]:
        """Rows of the table that is printed when training starts."""

    def results(self, figures: dict[str, float]) -> dict[str, str]:
        """Rows made of the final figures, for the table that is printed when training ends."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the card to every checkpoint."""
        checkpoint[CARD_KEY] = replace(self.card(), started_from=self.origin).to_dict()
