"""Finished trials as their folders tell them, or their files of W&B alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae_lightning.tracking.trial_board import FACTS
from mae_lightning.tracking.wandb_file import OfflineRun, read_offline_run

TRIAL, REPORT = "trial.json", "report.json"
CONTENT = ("study", "seed", "parameters", "code", "finished", "metrics", "draws", "stages")
WANDB = ".wandb"


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Attributes:
        folder: The trial's folder.
        study: The table or figure it belongs to, after its scale.
        seed: Of all its stages.
        parameters: Its settings as text, by dotted names without ``init_args``.
        metrics: Its figures by name.
        draws: Figures that were drawn several times, by name.
        stages: Of each stage where it lies, its seconds, and hashes of config and manifest.
        code: Version and commit.
    """

    folder: Path
    study: str
    seed: int
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    draws: Mapping[str, Sequence[float]]
    stages: Mapping[str, Mapping[str, Any]]
    code: str

    @property
    def seconds(self) -> float:
        """Wall time of all stages; of shared pretraining, too."""
        return float(sum(stage["seconds"] for stage in self.stages.values()))

    @property
    def hashes(self) -> dict[str, str]:
        """Of the stages' configs and of the data's manifests, by what they are of."""
        kinds = ("config", "manifest")
        return {f"{name} {kind}": stage[kind] for kind in kinds for name, stage in self.stages.items() if kind in stage}


def read_trials(places: Sequence[Path]) -> tuple[list[TrialRecord], list[Path]]:
    """The finished trials at or below the places, and the folders of those that are not finished.

    Args:
        places: Folders, or ``.wandb`` files. A trial whose folder is not there is read from its offline run.

    Raises:
        FileNotFoundError: A place is not there, or holds no trial.
        ValueError: A record or a ``.wandb`` file is damaged.
    """
    finished, unfinished = [], []
    for place in places:
        found = [(path.parent, _read(path)) for path in sorted(place.rglob(TRIAL))]
        found += _offline_trials(place)
        if not found and not (place / REPORT).is_file():  # an earlier report lies beside the trials that a glob names
            raise FileNotFoundError(f"{place} has no trial in it; name the folder of a trial, or of a sweep's trials")
        for folder, content in found:
            if content["finished"] and content["study"]:
                finished.append(_record(folder, content))
            else:
                unfinished.append(folder)
    return finished, unfinished


def _read(path: Path) -> dict[str, Any]:
    """A trial's own record."""
    try:
        content = json.loads(path.read_text())
        return {name: content[name] for name in CONTENT}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged; take it away, and its trial's command writes it anew") from error


def _offline_trials(place: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Trials known by W&B's files alone, as their own records would be; a run that went on has several files."""
    paths = [place] if place.suffix == WANDB and place.is_file() else sorted(place.rglob(f"*{WANDB}"))
    runs: dict[str, tuple[Path, OfflineRun]] = {}
    for path in paths:
        if any((folder / TRIAL).is_file() for folder in path.parents):
            continue
        run = read_offline_run(path)
        if run.run_id in runs:
            before = runs[run.run_id][1]
            run.config, run.summary = before.config | run.config, before.summary | run.summary
        own = path.parents[2] if path.parent.parent.name == "wandb" else path.parent
        runs[run.run_id] = (own, run)
    return [(folder, _content(run)) for folder, run in runs.values() if FACTS in run.config]


def _content(run: OfflineRun) -> dict[str, Any]:
    own = {name: value for name, value in run.config.items() if name != FACTS and not name.startswith("_")}
    return {
        "seed": own["seed"],
        "parameters": {name.replace("/", "."): value for name, value in own.items()},
        "metrics": {name: value for name, value in run.summary.items() if name.startswith("trial/")},
        **run.config[FACTS],
    }


def _record(folder: Path, content: Mapping[str, Any]) -> TrialRecord:
    parameters = {short_key(name): str(value) for name, value in content["parameters"].items()}
    names = ("metrics", "draws", "stages", "code", "study")
    return TrialRecord(folder, seed=int(content["seed"]), parameters=parameters, **{n: content[n] for n in names})


def short_key(name: str) -> str:
    """A dotted name without ``init_args``."""
    return ".".join(part for part in name.split(".") if part != "init_args")
