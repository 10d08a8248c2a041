"""One folder a run, and what the same command does a second time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mae_lightning.callbacks.time_limits import Limits
from mae_lightning.tracking.loggers import WandbMode

Resume = Literal["auto", "must", "never"]
Recover = Literal["stop", "skip"]

CONFIG = "config.yaml"
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
NAMELESS = "unnamed"
HARMLESS = ("trainer", "logging")
"""Folders of shipped configs that do not change the result, and so are no part of a run's name."""


@dataclass(frozen=True)
class Run:
    """The run's folder: config.yaml, metrics.csv, checkpoints and pictures lie in dir/name.

    Args:
        name: The folder's name; by default after the recipe, such as quickstart-pretrain.
        dir: Where the folders of runs lie.
        resume: If a checkpoint is there, auto goes on from it and never refuses; if none is there, must refuses.
        recover: After a step whose loss or gradient is no number, stop ends the run; skip goes on from the last
            checkpoint and leaves that step out, at most three of them.
        wandb: auto is online when logged in to Weights & Biases and offline otherwise; off writes metrics.csv only.
        project: The project on Weights & Biases.
        node_metrics: Whether the run there shows the system metrics of every node, not of the first alone; online only.
        limits: Seconds after which a process that waits in vain writes the stacks of its threads and ends.
    """

    name: str | None = None
    dir: str = "runs"
    resume: Resume = "auto"
    recover: Recover = "stop"
    wandb: WandbMode = "auto"
    project: str = "mae-lightning"
    node_metrics: bool = False
    limits: Limits = Limits()  # noqa: RUF009 - frozen

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "Run":
        """The run that a config asks for; its limits are a mapping there."""
        return cls(**{**settings, "limits": Limits(**settings["limits"])})

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.dir) / (self.name or NAMELESS)


@dataclass(frozen=True)
class Progress:
    """How far a checkpoint got.

    Attributes:
        epochs: Those that are complete.
        steps: Optimiser steps.
        validation_pending: The validation after the last step, if one was due, has not finished.
    """

    epochs: int
    steps: int
    validation_pending: bool = False


@dataclass(frozen=True)
class Decision:
    """What a run does with its folder, and the line that says so."""

    action: Literal["start", "continue", "stop"]
    line: str


def default_name(configs: Sequence[Path], shipped: Path) -> str:
    """A run's name after its configs: ``quickstart-pretrain``, and what was laid over it, joined by ``+``.

    Args:
        configs: The config files in their order.
        shipped: The folder of the shipped configs; a file below it is named with its folder, others by their stem.
    """
    parts = [_part_of_name(path.resolve(), shipped.resolve()) for path in configs]
    return "+".join(part for part in parts if part) or NAMELESS


def _part_of_name(path: Path, shipped: Path) -> str:
    if not path.is_relative_to(shipped):
        return path.stem
    kind, *names = path.relative_to(shipped).with_suffix("").parts
    return "" if kind in HARMLESS else "-".join(names or [kind])


def next_recipe(configs: Sequence[Path]) -> Path | None:
    """The fine-tuning recipe that stands beside a pretraining recipe, if one of the configs is one."""
    for path in configs:
        for name in (path.name.replace("pretrain", "finetune"), f"finetune_{path.name}"):
            beside = path.with_name(name)
            if beside != path and beside.is_file():
                return beside
    return None


def decide(
    folder: Path,
    resume: Resume,
    *,
    saved: Progress | None,
    is_used: bool,
    changed: str | None,
    max_epochs: int | None,
    max_steps: int,
) -> Decision:
    """What ``fit`` does with its folder.

    Args:
        folder: The run's folder.
        resume: What the user asked for.
        saved: How far the folder's last checkpoint got; None without one.
        is_used: Whether a run has already been started in it.
        changed: The settings of that run which are others now, in words; None if all are the same.
        max_epochs: Epochs of the whole run; None or negative for no limit.
        max_steps: Steps of the whole run; negative for no limit.

    Raises:
        ValueError: ``must`` with nothing there, ``never`` with something there, or a run of another config there.
    """
    if resume == "never" and is_used:
        raise ValueError(f"--run.resume=never, but {folder} holds a run; take another --run.name")
    if saved is None:
        if resume == "must":
            raise ValueError(
                f"--run.resume=must, but {folder / LAST_CHECKPOINT} is not there; "
                f"check --run.dir and --run.name, or start with --run.resume=auto"
            )
        return Decision("start", f"{folder}: a new run")
    if changed is not None:
        raise ValueError(f"{folder} holds a run of another config: {changed}; take another --run.name")
    reached = f"{saved.epochs} epochs, {saved.steps} steps"
    if _reaches(saved.epochs, max_epochs) or (_reaches(saved.steps, max_steps) and not saved.validation_pending):
        return Decision("stop", f"{folder}: complete after {reached}; another --run.name starts a new run")
    return Decision("continue", f"{folder}: goes on after {reached}, from {LAST_CHECKPOINT}")


def _reaches(done: int, limit: int | None) -> bool:
    return limit is not None and 0 <= limit <= done
