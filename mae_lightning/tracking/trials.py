"""Finished trials as their folders tell them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRIAL = "trial.json"


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

    Raises:
        FileNotFoundError: A place is not there, or holds no trial.
    """
    finished, unfinished = [], []
    for place in places:
        paths = sorted(place.rglob(TRIAL)) if place.is_dir() else []
        if not paths:
            raise FileNotFoundError(f"{place} has no trial in it; name the folder of a trial, or of a sweep's trials")
        for path in paths:
            content = json.loads(path.read_text())
            if content["finished"] and content["study"]:
                finished.append(_record(path.parent, content))
            else:
                unfinished.append(path.parent)
    return finished, unfinished


def _record(folder: Path, content: Mapping[str, Any]) -> TrialRecord:
    parameters = {short_key(name): str(value) for name, value in content["parameters"].items()}
    names = ("metrics", "draws", "stages", "code", "study")
    return TrialRecord(folder, seed=int(content["seed"]), parameters=parameters, **{n: content[n] for n in names})


def short_key(name: str) -> str:
    """A dotted name without ``init_args``."""
    return ".".join(part for part in name.split(".") if part != "init_args")
