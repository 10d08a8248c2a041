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
        flags = [f"--{name}={_text(value)}" for name, value in values.items()]
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
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise ValueError(f"{path} is no sweep file: it needs method, parameters and command, as W&B documents them")
    command = content.get("command")
    command = [str(word) for word in command] if isinstance(command, list) else []
    if TRIAL not in command or "${args}" not in command:
        raise ValueError(f"{path}: the command must be '${{interpreter}} -m mae_lightning trial ... ${{args}}'")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise ValueError(f"{path}: run_cap {cap!r} is no number of trials; it is 1 or more")
    parameters = {str(name): parameter for name, parameter in content["parameters"].items()}
    for name, parameter in parameters.items():
        if problem := _problem(parameter):
            raise ValueError(f"{path}: {name}: {problem}")
    return SweepFile(str(content.get("name") or path.stem), str(content.get("method")), parameters, command, cap)


def _problem(parameter: Any) -> str | None:
    """What is wrong with a parameter, if anything."""
    if not isinstance(parameter, dict):
        return f"expected a mapping such as {{values: [0.5, 0.75]}}, not {parameter!r}"
    values, shares = parameter.get("values"), parameter.get("probabilities")
    if "values" in parameter and (not isinstance(values, list) or not values):
        return f"values is a list with something in it, not {values!r}"
    if shares is not None and not _are_shares(shares, len(values or ())):
        return f"probabilities is a list of as many numbers as values, not all 0, not {shares!r}"
    for bound in ("min", "max"):
        if (number := parameter.get(bound, 0.0)) is not None and not isinstance(number, int | float):
            return f"{bound} {number!r} is no number; YAML takes 1e-4 for text: write 1.0e-4"
    return _problem_of_bounds(parameter)


def _problem_of_bounds(parameter: Mapping[str, Any]) -> str | None:
    low, high = parameter.get("min"), parameter.get("max")
    if low is not None and high is not None and low > high:
        return f"min {low} is above max {high}"
    if parameter.get("distribution") == "log_uniform_values" and low is not None and low <= 0:
        return f"log_uniform_values needs a min above 0, not {low}"
    return None


def _are_shares(shares: Any, count: int) -> bool:
    if not isinstance(shares, list) or len(shares) != count:
        return False
    return all(isinstance(share, int | float) and share >= 0 for share in shares) and sum(shares) > 0


def combination_name(values: Mapping[str, Any], constant: Sequence[str]) -> str:
    """A folder's name of what varies: ``mask_ratio=0.5,seed=0``."""
    parts = [f"{name.rpartition('.')[2]}={_text(value)}" for name, value in values.items() if name not in constant]
    text = ",".join(parts) or TRIAL
    return "".join(letter if letter.isalnum() or letter in "=,.+-_" else "-" for letter in text)


def shell_line(words: Sequence[str]) -> str:
    """A trial's whole command, to be pasted into a shell."""
    return shlex.join([sys.executable, "-m", "mae_lightning", TRIAL, *words])


def _text(value: Any) -> str:
    """A value as an option has it."""
    return "null" if value is None else str(value)


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
    kind = str(parameter.get("distribution", "int_uniform" if whole else "uniform"))
    draws: dict[str, Callable[[random.Random], Any]] = {
        "int_uniform": lambda source: source.randint(int(low), int(high)),
        "uniform": lambda source: source.uniform(low, high),
        "log_uniform_values": lambda source: math.exp(source.uniform(math.log(low), math.log(high))),
    }
    if kind not in draws:
        raise ValueError(f"{name}: distribution {kind!r} is none of {', '.join(draws)}; {USE_WANDB}")
    return draws[kind]
