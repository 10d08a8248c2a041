"""The confusion matrix as a file."""

import csv
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.tasks import Classification
from mae_lightning.tracking.unfailing import Unfailing


class ConfusionMatrix(Callback):
    """Writes which class was taken for which at each validation: rows the truth, columns the prediction.

    Args:
        folder: Where ``confusion.csv`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unfailing = Unfailing("writing confusion.csv")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the latest, unless this is the sanity check before training; the first process writes."""
        assert isinstance(pl_module, Classification)
        if trainer.sanity_checking or pl_module.metrics.confusion is None:
            return
        counts = pl_module.metrics.confusion.compute().tolist()
        if not trainer.is_global_zero:
            return
        with self._unfailing:
            names = pl_module.class_names or [str(label) for label in range(len(counts))]
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "confusion.csv").open("w", newline="") as file:
                rows = ([name, *row] for name, row in zip(names, counts, strict=True))
                csv.writer(file).writerows([["truth", *names], *rows])

    on_test_epoch_end = on_validation_epoch_end
