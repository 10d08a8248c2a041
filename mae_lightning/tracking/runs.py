"""What a run left in its folder: its config and its figures."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mae_lightning.weights import read_checkpoint

LAST_CHECKPOINT = "checkpoints/last.ckpt"
"""In a run's folder."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        folder: The run's folder.
        config: What was set.
        rows: The logged steps, oldest first; figures by name.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, float]]

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return int(self.config["seed_everything"])

    def last(self, metric: str) -> float:
        """A figure's last value.

        Raises:
            ValueError: The run has no such figure; names those that it has.
        """
        for row in reversed(self.rows):
            if metric in row:
                return row[metric]
        known = sorted({name for row in self.rows for name in row} - {"step", "epoch"})
        raise ValueError(f"{self.folder} has no {metric}; it has {', '.join(known) or 'no figures yet'}")

    def check_complete(self) -> None:
        """Makes sure that the run came to its end: to its last epoch or its last step, where it has one.

        Raises:
            ValueError: It did not; says how far it came.
        """
        content = read_checkpoint(self.folder / LAST_CHECKPOINT)
        epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        done = {"epochs": int(epochs), "steps": int(content["global_step"])}
        limits = {unit: self.config["trainer"].get(f"max_{unit}") for unit in done}
        wanted = {unit: limit for unit, limit in limits.items() if limit is not None and limit >= 0}
        if wanted and all(done[unit] < limit for unit, limit in wanted.items()):
            reached = " and ".join(f"{done[unit]} of {limit} {unit}" for unit, limit in wanted.items())
            raise ValueError(f"{self.folder} stopped after {reached}; run its command again to finish it")


def read_run(folder: Path) -> RunRecord:
    """Reads a run's folder; one that logged nothing has no metrics.csv.

    Raises:
        FileNotFoundError: It is not the folder of a run.
    """
    config, metrics = folder / "config.yaml", folder / "metrics.csv"
    if not config.is_file():
        raise FileNotFoundError(f"{folder} is no run's folder: it has no {config.name}")
    text = metrics.read_text() if metrics.is_file() else ""
    rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())]
    return RunRecord(folder, yaml.safe_load(config.read_text()), rows)
