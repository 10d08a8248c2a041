"""The loggers of a run, and one way to give a picture to all of them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

from mae_lightning.tracking.metrics_csv import MetricsCSV

WandbMode = Literal["auto", "online", "offline", "off"]


def build_loggers(run_dir: Path, name: str, project: str, mode: WandbMode = "auto") -> list[Logger]:
    """metrics.csv and, unless it is off, a Weights & Biases run, both inside the run's folder.

    Args:
        run_dir: The run's folder.
        name: The run's name.
        project: The project on Weights & Biases.
        mode: ``auto`` is online when the user is logged in and offline otherwise; ``off`` writes metrics.csv only.
    """
    loggers: list[Logger] = [MetricsCSV(run_dir)]
    if mode != "off":
        offline = mode == "offline" or (mode == "auto" and not is_logged_in())
        loggers.append(_wandb_logger(run_dir, name, project, offline))
    return loggers


def log_picture(loggers: Sequence[Logger], key: str, path: Path, step: int) -> None:
    """Shows a PNG that lies in the run's folder on Weights & Biases too, if the run is there."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=key, images=[str(path)], step=step)


def is_logged_in() -> bool:
    """Whether a key is at hand, found without asking the network."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    return bool(wandb.login(prompt=False, verify=False))


def _wandb_logger(run_dir: Path, name: str, project: str, offline: bool) -> WandbLogger:
    """One run folder is one run on W&B: the id follows from the folder, so that a resumed run goes on there."""
    run_dir.mkdir(parents=True, exist_ok=True)
    run_id = os.environ.get("WANDB_RUN_ID") or _stable_id(run_dir)
    settings = wandb.Settings(silent=True, console="off", mode="offline" if offline else "online")
    logger = WandbLogger(name=name, save_dir=run_dir, id=run_id, project=project, offline=offline, settings=settings)
    logger._wandb_init.pop("anonymous", None)  # W&B warns about this argument, which Lightning always gives
    return logger


def _stable_id(run_dir: Path) -> str:
    """The id kept in the run's folder, made from its place and the time when it was first used."""
    path = run_dir / "wandb_id"
    if not path.exists():
        seed = f"{run_dir.resolve()}{os.urandom(8).hex()}"
        path.write_text(hashlib.sha256(seed.encode()).hexdigest()[:12])
    return path.read_text().strip()
