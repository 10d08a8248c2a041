"""The callbacks that every run has."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mae_lightning.callbacks.clocked import ClockedCheckpoint
from mae_lightning.callbacks.confusion import ConfusionMatrix
from mae_lightning.callbacks.finite import FiniteNumbers
from mae_lightning.callbacks.goodput import Goodput
from mae_lightning.callbacks.knn import KNNProbe
from mae_lightning.callbacks.reconstructions import ReconstructionPictures
from mae_lightning.callbacks.resumed import SeamlessLog
from mae_lightning.callbacks.skipped import SkippedSamples
from mae_lightning.callbacks.summary import RunSummary
from mae_lightning.callbacks.throughput import Throughput
from mae_lightning.callbacks.tokenizer_file import TokenizerFile
from mae_lightning.tasks import Classification, MaskedPretraining, TokenizerTraining

SAVE_EVERY = timedelta(minutes=15)
"""Most that a crash in the middle of an epoch can cost; an epoch's end is always saved."""


def default_callbacks(run_dir: Path, task: LightningModule, next_recipe: Path | None = None) -> list[Callback]:
    """Checkpoints, table, pace; for pretraining also pictures and the k-NN probe.

    A callback of the same class in the user's config takes the place of the one here.

    Args:
        run_dir: The run's folder.
        task: What is trained.
        next_recipe: The recipe that goes on from the run's checkpoint.
    """
    last: dict[str, Any] = {"dirpath": run_dir / "checkpoints", "filename": "last", "enable_version_counter": False}
    callbacks: list[Callback] = [
        ModelCheckpoint(**last, save_on_train_epoch_end=True),
        ClockedCheckpoint(SAVE_EVERY, **last, save_on_train_epoch_end=False),
        Goodput(run_dir),
        RunSummary(run_dir, next_recipe),
        Throughput(),
        FiniteNumbers(run_dir),
        SkippedSamples(),
        SeamlessLog(),
    ]
    if isinstance(task, MaskedPretraining):
        callbacks += [ReconstructionPictures(run_dir / "pictures"), KNNProbe()]
    if isinstance(task, TokenizerTraining):
        callbacks.append(TokenizerFile(run_dir))
    if isinstance(task, Classification) and task.metrics.confusion is not None:
        callbacks.append(ConfusionMatrix(run_dir))
    return callbacks
