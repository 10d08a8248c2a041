"""W&B's sweep files: what they ask for, as commands."""

import math
import random
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

TRIAL = "trial"
USE_WANDB = "run it with W&B: wandb sweep FILE, then wandb agent ID"

Values = dict[str, Any]


@dataclass(frozen=True)
class SweepFile:
    """A sweep as its file says it.

    Attributes:
        name: Of the sweep.
        method: How combinations are chosen.
        parameters: What each may be, by its dotted name.
        command: The words of a trial's command, with W&B's macros.
        run_cap: Most trials, where the file says so.
    """

    name: str
    method: str
    parameters: dict[str, dict[str, Any]]
    command: list[str]
    run_cap: int | None = None

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """What follows ``trial`` for one combination, as W&B's agent gives it."""
        flags = [f"--{name}={value}" for name, value in values.items()]
        start = self.command.index(TRIAL) + 1
        return [word for part in self.command[start:] for word in (flags if part == "${args}" else [part])]

    def combinations(self, trials: int | None = None, seed: int = 0) -> list[Values]:
        """The combinations to run, grid in the order of the file.

        Args:
            trials: How many to draw at random; at most so many of a grid.
            seed: Of the draws.

        Raises:
            ValueError: The method or a distribution is only W&B's to run, or the number is not known.
        """
        limit = trials or self.run_cap
        if self.method == "grid":
            choices = [_choices(name, parameter) for name, parameter in self.parameters.items()]
            found = [dict(zip(self.parameters, values, strict=True)) for values in product(*choices)]
            return found[:limit]
        if self.method != "random":
            raise ValueError(f"method {self.method!r} needs a server, and here are grid and random; {USE_WANDB}")
        if limit is None:
            raise ValueError("a random search has no end of its own: give --trials N, or run_cap in the file")
        source = random.Random(seed)
        draws = {name: _sampler(name, parameter) for name, parameter in self.parameters.items()}
        return [{name: draw(source) for name, draw in draws.items()} for _ in range(limit)]


def read_sweep(path: Path) -> SweepFile:
    """Reads a sweep file.

    Raises:
        ValueError: It is none, or its trials are not this program's.
    """
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise ValueError(f"{path} is no sweep file: it needs method, parameters and command, as W&B documents them")
    command = [str(word) for word in content.get("command") or []]
    if TRIAL not in command or "${args}" not in command:
        raise ValueError(f"{path}: the command must be '${{interpreter}} -m mae_lightning trial ... ${{args}}'")
    name = str(content.get("name") or path.stem)
    return SweepFile(name, str(content.get("method")), content["parameters"], command, content.get("run_cap"))


def combination_name(values: Mapping[str, Any], constant: Sequence[str]) -> str:
    """A folder's name of what varies: ``mask_ratio=0.5,seed=0``."""
    parts = [f"{name.rpartition('.')[2]}={value}" for name, value in values.items() if name not in constant]
    text = ",".join(parts) or TRIAL
    return "".join(letter if letter.isalnum() or letter in "=,.+-_" else "-" for letter in text)


def shell_line(words: Sequence[str]) -> str:
    """A trial's whole command, to be pasted into a shell."""
    return shlex.join([sys.executable, "-m", "mae_lightning", TRIAL, *words])


def _choices(name: str, parameter: Mapping[str, Any]) -> list[Any]:
    if "values" in parameter:
        return list(parameter["values"])
    if "value" in parameter:
        return [parameter["value"]]
    raise ValueError(f"{name}: a grid needs values, or one value; distributions are for method: random")


def _sampler(name: str, parameter: Mapping[str, Any]) -> Callable[[random.Random], Any]:
    """How a value is drawn."""
    if "value" in parameter or "values" in parameter:
        values = _choices(name, parameter)
        return lambda source: source.choices(values, parameter.get("probabilities"))[0]
    low, high = parameter.get("min"), parameter.get("max")
    if low is None or high is None:
        raise ValueError(f"{name}: give value, values, or min and max; for other distributions {USE_WANDB}")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = parameter.get("distribution", "int_uniform" if whole else "uniform")
    draws: dict[str, Callable[[random.Random], Any]] = {
        "int_uniform": lambda source: source.randint(int(low), int(high)),
        "uniform": lambda source: source.uniform(low, high),
        "log_uniform_values": lambda source: math.exp(source.uniform(math.log(low), math.log(high))),
    }
    if kind not in draws:
        raise ValueError(f"{name}: distribution {kind!r} is none of {', '.join(draws)}; {USE_WANDB}")
    return draws[kind]
