"""A run that dies between a checkpoint and its log, or in a validation, leaves no trace in the log once resumed."""

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from mae_lightning.callbacks import SeamlessLog
from mae_lightning.data.resume import Position, align_loops
from mae_lightning.tracking.metrics_csv import MetricsCSV

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*does not have many workers",
    "ignore:.*exists and is not empty",
    "ignore:.*ended before the epoch ended",  # what the loader has trained on is told by hand here
)


class Death(BaseException):
    pass


class Counting(L.LightningModule):
    """Logs the number of its step."""

    def __init__(self, dies_validating: int | None = None) -> None:
        super().__init__()
        self.weight, self.dies_validating = torch.nn.Parameter(torch.zeros(1)), dies_validating

    def training_step(self, batch, batch_idx):
        self.log("train/number", float(self.global_step))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        if self.global_step == self.dies_validating:
            raise Death
        self.log("val/number", float(self.global_step))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_load_checkpoint(self, checkpoint):
        """What the data module does for real data."""
        done, epochs = checkpoint["global_step"], checkpoint["global_step"] // 5
        position = Position(epochs, 0) if done % 5 == 0 and checkpoint["pending"] is False else Position(0, done)
        if checkpoint["pending"]:
            position = Position((done - 1) // 5, (done - 1) % 5 + 1, validation_pending=True)
        align_loops(checkpoint["loops"]["fit_loop"], position, 1)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["pending"] = self.global_step % 5 == 0


class Dying(MetricsCSV):
    """Dies instead of logging a step."""

    def __init__(self, folder: Path, step: int | None) -> None:
        super().__init__(folder)
        self.fatal = step

    def log_metrics(self, metrics, step=None):
        if step == self.fatal and "train/number" in metrics:
            raise Death
        super().log_metrics(metrics, step)


def fit(folder: Path, fatal_step: int | None = None, dies_validating: int | None = None) -> None:
    keep = ModelCheckpoint(folder, filename="last", enable_version_counter=False, every_n_train_steps=1)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=Dying(folder, fatal_step),
        callbacks=[SeamlessLog(), keep],
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(torch.zeros(5, 1)))
    last = folder / "last.ckpt"
    trainer.fit(Counting(dies_validating), data, data, ckpt_path=last if last.exists() else None, weights_only=True)


def rows(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [(row["step"], row["train/number"], row["val/number"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("death", [{"fatal_step": 2}, {"fatal_step": 0}, {"dies_validating": 5}])
def test_the_log_of_a_resumed_run_has_no_gap_and_no_shift(tmp_path: Path, death: dict[str, int]) -> None:
    fit(tmp_path / "whole")
    with pytest.raises(Death):
        fit(tmp_path / "again", **death)
    fit(tmp_path / "again")
    assert rows(tmp_path / "again") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == 12
