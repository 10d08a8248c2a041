"""The system metrics of every node in one W&B run."""

from collections.abc import Callable

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from mae_lightning.tracking import watch_node


class NodeMetrics(Callback):
    """Has the first process of each further node add its node's load, memory and GPUs to the run of the first node.

    Args:
        project: The project on Weights & Biases.
    """

    def __init__(self, project: str) -> None:
        self.project = project
        self._leave: Callable[[], None] = lambda: None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learns the run's id from the first process, and joins."""
        ids = [str(logger.experiment.id) for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        run_id = trainer.strategy.broadcast(ids[0] if trainer.is_global_zero else None)
        if run_id is not None and trainer.local_rank == 0 and trainer.node_rank > 0:
            self._leave = watch_node(run_id, self.project, trainer.node_rank)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the run, which goes on until the first process ends it."""
        self._leave()
