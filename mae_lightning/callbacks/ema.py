"""A moving average of the weights, refused where it could not follow them."""

import warnings
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy

HORIZONS = 5
"""Averages need this many times their memory of 1 / (1 - decay) steps, or the first weights still weigh."""


class WeightEMA(EMAWeightAveraging):
    """Validates and saves the exponential moving average of the weights (paper Table 11: decay 0.9999).

    The average starts at the weights after the first step. During a validation, until its probes and pictures are done,
    the model has the average and the average's place holds the weights that train.

    Args:
        decay: Share of the average that a step leaves.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay {decay:g} must be between 0 and 1")
        super().__init__(decay=decay)
        self.decay = decay
        self._is_swapped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the average.

        Raises:
            ValueError: The weights are sharded, and the average would not be.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise ValueError(
                "a weight average needs whole weights on each device: use --config trainer/ddp, or leave WeightEMA out"
            )
        self._device = trainer.strategy.root_device  # the model goes there only after this
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You're using the WeightAveraging callback with a model that overrides")
            super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the average to the model."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._is_swapped = self._average_model is not None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits, unlike Lightning's: probes and pictures of this moment, of whatever callback, are of the average."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the model the weights that train back."""
        if self._is_swapped:
            self._swap_models(pl_module)
            self._is_swapped = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Saves the average as the model's weights, and beside them those that train, in a validation too."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            average, training = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint |= {"state_dict": average, "current_model_state": training}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that the run is long enough.

        Raises:
            ValueError: It is not; names the greatest decay that would do.
        """
        steps, needed = int(trainer.estimated_stepping_batches), HORIZONS / (1 - self.decay)
        if steps < round(needed):
            raise ValueError(
                f"a weight average of decay {self.decay:g} needs {needed:.0f} steps and this run has {steps};"
                f" train longer, or take a decay of at most {max(0.0, 1 - HORIZONS / steps):.4g}"
            )
