"""metrics.csv: one row a logged step, kept when a run goes on."""

import csv
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only


class AppendingWriter(ExperimentWriter):
    """Lightning's writer, which deletes an earlier file; this one goes on from it.

    The first row written decides where: later rows, and those of its step with the same figures, belong to work that
    was lost and is done again.
    """

    def _check_log_dir_exists(self) -> None:
        """Reads the columns of an earlier file instead of deleting it."""
        if Path(self.metrics_file_path).is_file():
            self.metrics_keys = list(self._read()[0])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with Path(self.metrics_file_path).open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        return list(reader.fieldnames or []), rows

    def forget_from(self, step: int, figures: Collection[str]) -> None:
        """Drops the rows after this step, and of this step those that hold any of the figures."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        columns, rows = self._read()
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            for row in rows:
                at = int(row["step"])
                if at < step or (at == step and not any(row.get(name) for name in figures)):
                    writer.writerow(row)

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Nothing: the run's config.yaml holds them."""


class MetricsCSV(CSVLogger):
    """Writes ``metrics.csv`` into the run's folder and keeps what is there when the run goes on.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(save_dir=run_dir, name="", version="", flush_logs_every_n_steps=50)

    @property
    def experiment(self) -> Any:
        """The writer on the first process; elsewhere a stand-in that takes every call."""
        if _is_first_process() and self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = AppendingWriter(log_dir=self.log_dir)
        return super().experiment

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Records a row; the first one after a resume replaces the rows of lost work."""
        if _is_first_process() and step is not None and not getattr(self, "_started", False):
            self.experiment.forget_from(step, set(metrics) - {"epoch"})
            self._started = True
        super().log_metrics(metrics, step)


def _is_first_process() -> bool:
    return int(getattr(rank_zero_only, "rank", 0)) == 0
