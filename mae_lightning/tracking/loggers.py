"""The loggers of a run, and one way to give a picture to all of them."""

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.secrets import redact_arguments
from mae_lightning.tracking.metrics_csv import MetricsCSV
from mae_lightning.tracking.unfailing import Unfailing, reason

log = logging.getLogger(__name__)

WandbMode = Literal["auto", "online", "offline", "off"]
START_SECONDS, END_SECONDS = 20.0, 60.0
"""Most that Weights & Biases can hold up a run: until it answers, and until the last figures are sent."""


def build_loggers(
    run_dir: Path, name: str, project: str, mode: WandbMode = "auto", *, node_metrics: bool = False
) -> list[Logger]:
    """metrics.csv and, unless it is off, a Weights & Biases run, both inside the run's folder.

    Args:
        run_dir: The run's folder.
        name: The run's name.
        project: The project on Weights & Biases.
        mode: ``auto`` is online when the user is logged in and offline otherwise; ``off`` writes metrics.csv only.
        node_metrics: Whether other nodes add their system metrics to the run, see `watch_node`.

    Raises:
        ValueError: Other nodes cannot add to a run that is not online.
    """
    offline = mode == "offline" or (mode == "auto" and not is_logged_in())
    if node_metrics and (offline or mode == "off"):
        raise ValueError("--run.node_metrics needs Weights & Biases online: run `wandb login`, or leave it out")
    loggers: list[Logger] = [MetricsCSV(run_dir)]
    if mode != "off":
        settings = node_settings(0) if node_metrics else _settings("offline" if offline else "online")
        loggers.append(_wandb_logger(run_dir, name, project, settings))
    return loggers


class UnfailingWandb(WandbLogger):
    """Never stops or slows a run: where the server does not answer the run is kept offline, and what fails is left."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # W&B warns about this argument, which Lightning always gives
        self.unfailing = Unfailing("logging to Weights & Biases", Exception)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run on the first process: as asked for, offline where that fails, or one that keeps nothing."""
        if self._experiment is None:
            try:
                return self._start()
            except Exception as error:  # whatever a network or a disk does
                log.warning("Weights & Biases cannot be used, the run is kept offline: %s", reason(error))
                self._offline, self._wandb_init["settings"] = True, _settings("offline")
            wandb.teardown(1)  # else the run's id is in use
            try:
                return self._start()
            except Exception as error:  # as above
                log.warning("nor offline, so metrics.csv alone has the figures: %s", reason(error))
            self._experiment = wandb.init(mode="disabled")
        return self._experiment

    def _start(self) -> Any:
        with _hidden_secrets():
            return super().experiment

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs figures, or leaves them."""
        with self.unfailing:
            super().log_metrics(metrics, step)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **options: Any) -> None:
        """Logs pictures, or leaves them."""
        with self.unfailing:
            super().log_image(key, images, step, **options)


@contextmanager
def _hidden_secrets() -> Iterator[None]:
    """W&B writes down the command line that it finds: here it finds one without secrets."""
    arguments = sys.argv
    sys.argv = redact_arguments(arguments)
    try:
        yield
    finally:
        sys.argv = arguments


def log_picture(loggers: Sequence[Logger], key: str, path: Path, step: int) -> None:
    """Shows a PNG that lies in the run's folder on Weights & Biases too, if the run is there."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=key, images=[str(path)], step=step)


def log_summary(loggers: Sequence[Logger], key: str, value: float) -> None:
    """Gives Weights & Biases a figure of the whole run; metrics.csv, where each row has its step, gets none."""
    for logger in loggers:
        if isinstance(logger, UnfailingWandb):
            with logger.unfailing:
                logger.experiment.summary[key] = value


def is_logged_in() -> bool:
    """Whether a key is at hand, found without asking the network."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    return bool(wandb.login(prompt=False, verify=False))


def node_settings(node: int) -> wandb.Settings:
    """Of a run that several nodes add to: the first has the figures, the others their own system metrics alone."""
    settings = _settings("shared")
    settings.x_label, settings.x_primary = f"node {node}", node == 0
    settings.x_update_finish_state = node == 0
    return settings


def watch_node(run_id: str, project: str, node: int) -> Callable[[], None]:
    """Adds the system metrics of this node to the run of the first, until what it returns is called."""
    with Unfailing("adding this node's metrics to Weights & Biases", Exception), _hidden_secrets():
        return wandb.init(id=run_id, project=project, settings=node_settings(node)).finish
    return lambda: None


def _settings(mode: Literal["online", "offline", "shared"]) -> wandb.Settings:
    return wandb.Settings(silent=True, console="off", mode=mode, init_timeout=START_SECONDS, finish_timeout=END_SECONDS)


def _wandb_logger(run_dir: Path, name: str, project: str, settings: wandb.Settings) -> UnfailingWandb:
    """One run folder is one run on W&B: the id follows from the folder, so that a resumed run goes on there."""
    run_dir.mkdir(parents=True, exist_ok=True)
    run_id = os.environ.get("WANDB_RUN_ID") or _stable_id(run_dir)
    offline = settings.mode == "offline"
    return UnfailingWandb(name=name, save_dir=run_dir, id=run_id, project=project, offline=offline, settings=settings)


def _stable_id(run_dir: Path) -> str:
    """The id kept in the run's folder, made from its place and the time when it was first used."""
    path = run_dir / "wandb_id"
    if getattr(rank_zero_only, "rank", 0) != 0:
        return "unused"  # the first process alone logs, and names the run
    if not path.exists():
        seed = f"{run_dir.resolve()}{os.urandom(8).hex()}"
        path.write_text(hashlib.sha256(seed.encode()).hexdigest()[:12])
    return path.read_text().strip()
