"""A trial's stages as commands of this program, and running one of them so that it can go on later."""

import fcntl
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae_lightning.atomic import write_atomically
from mae_lightning.commands.spelling import nearest

TRAINED = ("pretrain", "finetune", "probe")
STAGES = (*TRAINED, "evaluate")
EVERY = "all"
NO_OVERLAY = "none"
RECORD = "stage.json"
CHECKPOINT = "checkpoints/last.ckpt"
WATCH_SECONDS, GRACE_SECONDS = 5.0, 60.0

Setting = tuple[str, str]


@dataclass(frozen=True)
class Stage:
    """One part of a trial.

    Attributes:
        name: One of `STAGES`.
        recipe: The config that is trained; for ``evaluate`` the protocols, joined by commas.
        settings: What the recipe is overlaid with, ``config`` for whole files, several joined by ``+``; the last of a
            key wins.
    """

    name: str
    recipe: str
    settings: tuple[Setting, ...]

    @property
    def digest(self) -> str:
        """Of everything that was asked for."""
        return short_digest([self.name, self.recipe, *self.settings])

    def command(self, folder: Path, seed: int, encoder: Path | None) -> list[str]:
        """The arguments of this program that run the stage.

        Args:
            folder: Where it writes.
            seed: Of everything that is drawn.
            encoder: The checkpoint of an earlier stage to start from or to judge; None leaves the recipe's own.
        """
        return (self._evaluate if self.name == "evaluate" else self._fit)(folder, seed, encoder)

    def _fit(self, folder: Path, seed: int, pretrained: Path | None) -> list[str]:
        named = [name for key, value in self.settings if key == "config" for name in value.split("+")]
        overlays = [name for name in named if name != NO_OVERLAY]
        words = ["fit", *(f"--config={name}" for name in (self.recipe, *overlays))]
        words += [f"--run.dir={folder.parent}", f"--run.name={folder.name}", "--run.wandb=off"]
        words.append(f"--seed_everything={seed}")
        if pretrained is not None:
            words.append(f"--model.init_args.init_from={pretrained}")
        return words + self._flags()

    def _evaluate(self, folder: Path, seed: int, trained: Path | None) -> list[str]:
        encoder = dict(self.settings).get("encoder", trained)
        if encoder is None:
            raise ValueError("nothing to evaluate: give --pretrain=RECIPE, or --evaluate.encoder=CHECKPOINT")
        protocols = ["--protocols", *self.recipe.split(",")]
        return ["evaluate", str(encoder), *protocols, f"--out={folder}", "--wandb=off", f"--seed={seed}"] + [
            flag for flag in self._flags() if not flag.startswith("--encoder=")
        ]

    def _flags(self) -> list[str]:
        return [f"--{key}={value}" for key, value in self.settings if key != "config"]


def short_digest(content: Any) -> str:
    """Eight hexadecimal digits that stand for plain values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def parse_settings(words: Sequence[str]) -> dict[str, list[Setting]]:
    """The dotted settings of a trial by the stage they are for.

    Args:
        words: ``--STAGE.KEY=VALUE``, or the value as a word of its own.

    Raises:
        ValueError: A word is something else; says what would be right.
    """
    found: dict[str, list[Setting]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        stage, dot, key = option.removeprefix("--").partition(".")
        if not option.startswith("--") or not dot or not key:
            raise ValueError(f"trial: unexpected {word!r}; settings are --STAGE.KEY=VALUE, stages {', '.join(STAGES)}")
        if stage not in (*STAGES, EVERY):
            raise ValueError(f"trial: {option} names no stage{nearest(stage, (*STAGES, EVERY))}")
        if not equals and (not rest or rest[0].startswith("--")):
            raise ValueError(f"trial: {option} needs a value: {option}=VALUE")
        found.setdefault(stage, []).append((key, value if equals else rest.pop(0)))
    return found


def permissions(allowed_imports: Sequence[str]) -> list[str]:
    """The settings of a trial that let its configs name packages of the user's."""
    return [f"--{EVERY}.allow-import={package}" for package in allowed_imports]


@dataclass(frozen=True)
class StageRecord:
    """What a stage left in its folder beside what the command itself wrote.

    Attributes:
        digest: Of the settings it was run with.
        finished: Whether it came to its end.
        seconds: Wall time of all its attempts.
        figures: What it came to, by name.
        provenance: Hashes of its config and of the manifest of its data, where known.
    """

    digest: str
    finished: bool = False
    seconds: float = 0.0
    figures: dict[str, Any] | None = None
    provenance: dict[str, str] | None = None

    @classmethod
    def read(cls, folder: Path) -> "StageRecord | None":
        """The record in a folder, if there is one."""
        path = folder / RECORD
        return cls(**read_json(path)) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Leaves it in the folder."""
        write_json(folder / RECORD, vars(self))


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged; take it away, and the same command writes it anew") from error


def write_json(path: Path, content: Any) -> None:
    """Writes plain values, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


@contextmanager
def sole_worker(folder: Path) -> Iterator[int]:
    """Waits until no other process works in the folder; the descriptor keeps others out while any holder lives."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process works here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def run_program(words: Sequence[str], log: Path, launcher: str, lock: int, watch: Callable[[], None]) -> None:
    """Runs a command of this program as a process of its own, its output appended to a file.

    A process of its own: memory and random state are fresh, and Lightning starts its ranks by running it again.

    Args:
        words: The command and its arguments.
        log: Where its output goes.
        launcher: What starts it in place of this Python, such as ``torchrun --nproc-per-node 8``.
        lock: Descriptor that it inherits, so that the folder stays locked should this process be killed.
        watch: Called every few seconds while it runs.

    Raises:
        ValueError: It failed; with its last word and the place of the log.
    """
    start = shlex.split(launcher) if launcher else [sys.executable]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*start, "-m", "mae_lightning", *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),
        )
        try:
            while (code := _wait(process, WATCH_SECONDS)) is None:
                watch()
        except BaseException:
            _stop(process)
            raise
    if code:
        raise ValueError(f"{words[0]} ended with {code}: {last_word(log)}; log: {log}")


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Asks all processes of the command to end, and ends them if they do not."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            return
        if _wait(process, GRACE_SECONDS) is not None:
            return


def last_word(log: Path) -> str:
    """The line of a log that says what went wrong."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no output"])[-1].removeprefix("error: ")


@contextmanager
def terminable() -> Iterator[None]:
    """Lets SIGTERM end the work as an interruption does, so that what was started is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
