"""A table of figures on Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from mae_lightning.tracking.loggers import WandbMode, build_loggers


def log_table(
    folder: Path, key: str, rows: Sequence[Mapping[str, Any]], mode: WandbMode, project: str = "mae-lightning"
) -> None:
    """Shows rows of equal titles as one table, as a run of its own whose files lie in the folder."""
    for logger in build_loggers(folder, folder.name, project, mode):
        if isinstance(logger, WandbLogger):
            titles = list(rows[0])
            logger.log_table(key=key, columns=titles, data=[[row[title] for title in titles] for row in rows])
            logger.experiment.finish()
