"""The callbacks that every run has."""

from pathlib import Path

from lightning import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mae_lightning.callbacks.confusion import ConfusionMatrix
from mae_lightning.callbacks.knn import KNNProbe
from mae_lightning.callbacks.reconstructions import ReconstructionPictures
from mae_lightning.callbacks.summary import RunSummary
from mae_lightning.callbacks.throughput import Throughput
from mae_lightning.tasks import Classification, MAEPretraining


def default_callbacks(run_dir: Path, task: LightningModule, next_recipe: Path | None = None) -> list[Callback]:
    """Checkpoints, table, pace; for pretraining also pictures and the k-NN probe.

    A callback of the same class in the user's config takes the place of the one here.

    Args:
        run_dir: The run's folder.
        task: What is trained.
        next_recipe: The recipe that goes on from the run's checkpoint.
    """
    callbacks: list[Callback] = [
        ModelCheckpoint(dirpath=run_dir / "checkpoints", filename="last", enable_version_counter=False),
        RunSummary(run_dir, next_recipe),
        Throughput(),
    ]
    if isinstance(task, MAEPretraining):
        callbacks += [ReconstructionPictures(run_dir / "pictures"), KNNProbe()]
    if isinstance(task, Classification) and task.metrics.confusion is not None:
        callbacks.append(ConfusionMatrix(run_dir))
    return callbacks
