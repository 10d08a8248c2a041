"""Survival, all at once: a run of two processes that something happens to every minute, against one left in peace.

``python -m tests.faults.soak --minutes 30`` trains the nano model on the shipped images. Faults come in an order that
the seed decides; the same command is started again whenever it ended. Afterwards an undisturbed run, told of the steps
that were left out, makes the same steps, and the two are compared: the samples that the weights learnt from, and each
logged loss. One line a fault, a table at the end, all of it in a JSON file.
"""

import argparse
import atexit
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from in_run import read_ledger  # noqa: E402

from mae_lightning.callbacks.left_out import FILE as LEFT_OUT  # noqa: E402
from mae_lightning.callbacks.left_out import MOST as MOST_LEFT_OUT  # noqa: E402
from mae_lightning.strategies.durable import previous_of  # noqa: E402

RUN = Path("runs/soak")
LIMITS = {"start": 300, "step": 20, "read": 20, "save": 60, "other": 120}
PATIENCE = 90
"""Seconds after a fault that ends a run within which all of it has to be over: a limit, and the grace of others."""
MOST_IDLE_STARTS = 3
"""Starts more than there are faults, after which something is wrong with the run itself."""
COMMAND = [
    *(sys.executable, "-m", "mae_lightning", "--allow-import=in_run", "fit"),
    *(
        "--config=quickstart/pretrain",
        "--config=trainer/ddp",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
    ),
    *("--trainer.devices=2", "--data.init_args.num_workers=1", "--data.init_args.val=null"),
    *("--run.name=soak", "--run.wandb=off", "--run.recover=skip", f"--run.limits={json.dumps(LIMITS)}"),
    *("--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"),
    "--trainer.callbacks=in_run.SampleLedger",
    *("--trainer.callbacks+=in_run.MemoryLedger", "--trainer.callbacks+=in_run.PlantWhenTold"),
    *("--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.dirpath={RUN / 'checkpoints'}"),
    *("--trainer.callbacks.filename=last", "--trainer.callbacks.enable_version_counter=false"),
    "--trainer.callbacks.every_n_train_steps=20",
]


@dataclass
class Fault:
    """What was done to the run, and what came of it.

    Attributes:
        kind: What was done.
        at: Seconds after the soak began.
        code: The run's exit code; None where it went on in the same processes.
        seconds: From the fault to the end of the run, or until it had found it.
        hung: Whether it had to be ended by hand.
        left: Processes that outlived it.
    """

    kind: str
    at: float
    code: int | None = None
    seconds: float = 0.0
    hung: bool = False
    left: int = 0


class Training:
    """The run's processes.

    Args:
        folder: Where it is started.
        epochs: How long it trains.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self.run = folder / RUN
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"}
        self.log = (folder / "output.log").open("a")
        self.process = subprocess.Popen(
            [*COMMAND, f"--trainer.max_epochs={epochs}"],
            cwd=folder,
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.must_train_again()

    def must_train_again(self) -> None:
        """Only steps from now on count as training."""
        self._began = time.time()

    def is_training(self) -> bool:
        """Whether both processes have made steps since they were started."""
        notes = [self.run / f"memory-rank-{rank}.jsonl" for rank in (0, 1)]
        return all(note.exists() and note.stat().st_mtime > self._began for note in notes)

    def ranks(self) -> list[int]:
        """The two processes that train, in order."""
        first = self.process.pid
        others = [pid for pid, parent in processes_of(first).items() if parent == first and is_second(pid)]
        return [first, *others]

    def workers(self) -> list[int]:
        """The processes that read for them."""
        ranks = self.ranks()
        return [pid for pid, parent in processes_of(self.process.pid).items() if parent in ranks and pid not in ranks]

    def end(self) -> int:
        """Ends what is left of it; how many processes that were."""
        left = [pid for pid in processes_of(self.process.pid) if pid != self.process.pid]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()
        return len(left)


def processes_of(session: int) -> dict[int, int]:
    """The living processes of a session, and the parent of each."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, of = place.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended meanwhile
            continue
        if int(of) == session and state != "Z":
            found[int(place.parent.name)] = int(parent)
    return found


def is_second(pid: int) -> bool:
    try:
        return b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


# -------------------------------------------------------------------- faults


class NotYetError(Exception):
    """What is to be hit is not there."""


def strike(training: Training, chance: random.Random, number: signal.Signals) -> None:
    os.kill(chance.choice(training.ranks()), number)


def kill_all(training: Training, chance: random.Random) -> None:
    os.killpg(training.process.pid, signal.SIGKILL)


def kill_worker(training: Training, chance: random.Random) -> None:
    os.kill(chance.choice(training.workers()), signal.SIGKILL)


def cut_checkpoint(training: Training, chance: random.Random) -> None:
    """All are killed, and the last checkpoint loses its second half; the one before is there."""
    path = training.run / "checkpoints/last.ckpt"
    if not previous_of(path).exists():
        raise NotYetError
    kill_all(training, chance)
    os.truncate(path, path.stat().st_size // 2)


def plant_number(training: Training, chance: random.Random) -> None:
    (training.run / "plant").touch()


FAULTS: dict[str, Callable[[Training, random.Random], None]] = {
    "kill a rank": lambda training, chance: strike(training, chance, signal.SIGKILL),
    "kill all": kill_all,
    "SIGTERM to a rank": lambda training, chance: strike(training, chance, signal.SIGTERM),
    "stop a rank": lambda training, chance: strike(training, chance, signal.SIGSTOP),
    "kill a worker": kill_worker,
    "cut the checkpoint": cut_checkpoint,
    "plant a NaN": plant_number,
}


def drawn(chance: random.Random) -> Iterator[str]:
    """Kinds of faults without end: all of them in a random order, then all again; no more NaN than a run leaves out."""
    planted = 0
    while True:
        for kind in chance.sample(list(FAULTS), len(FAULTS)):
            planted += kind == "plant a NaN"
            if kind != "plant a NaN" or planted <= MOST_LEFT_OUT:
                yield kind


def number_left_out(run: Path) -> int:
    return len(json.loads((run / LEFT_OUT).read_text())) if (run / LEFT_OUT).exists() else 0


def befall(training: Training, kind: str, chance: random.Random, began: float) -> Fault | None:
    """Does it, and waits until the run has ended or left the step out; None where there is nothing to hit."""
    fault, known, at = Fault(kind, time.monotonic() - began), number_left_out(training.run), time.monotonic()
    try:
        FAULTS[kind](training, chance)
    except (ProcessLookupError, IndexError, NotYetError):
        return None

    def is_found() -> bool:
        goes_on = kind == "plant a NaN" and number_left_out(training.run) > known
        return goes_on or training.process.poll() is not None

    while not is_found() and time.monotonic() < at + PATIENCE:
        time.sleep(0.1)
    fault.seconds, fault.code, fault.hung = time.monotonic() - at, training.process.poll(), not is_found()
    if fault.code is not None or fault.hung:
        time.sleep(5)  # what others of the run take to end
        fault.left = training.end()
    return fault


# -------------------------------------------------------------------- runs


def started(folder: Path, epochs: int) -> Training:
    """The run, which ends with this process."""
    training = Training(folder, epochs)
    atexit.register(training.end)
    return training


def disturbed(folder: Path, arguments: argparse.Namespace) -> list[Fault]:
    """Trains to the end, whatever happens."""
    chance, began, faults = random.Random(arguments.seed), time.monotonic(), list[Fault]()
    kinds, due, starts = drawn(chance), arguments.every, 1
    kind = next(kinds)
    training = started(folder, arguments.epochs)
    while (code := training.process.poll()) is None or code != 0:
        if code is not None:
            training.end()
            starts += 1
            if starts > len(faults) + MOST_IDLE_STARTS:
                raise RuntimeError(f"ends without a fault, code {code}:\n{(folder / 'output.log').read_text()[-3000:]}")
            training = started(folder, arguments.epochs)
        now = time.monotonic() - began
        if now >= due and now < 60 * arguments.minutes and training.is_training():
            fault = befall(training, kind, chance, began)
            if fault is not None:
                faults.append(fault)
                print(fault, flush=True)
                training.must_train_again()
                kind = next(kinds)
            due = time.monotonic() - began + arguments.every
        time.sleep(0.2)
    training.end()
    return faults


def undisturbed(folder: Path, epochs: int, left_out: Path) -> None:
    """Trains in peace, and leaves the same steps out."""
    (folder / RUN).mkdir(parents=True)
    if left_out.exists():
        shutil.copy(left_out, folder / RUN)
    training = started(folder, epochs)
    code = training.process.wait()
    training.end()
    if code:
        raise RuntimeError(
            f"the undisturbed run ended with code {code}:\n{(folder / 'output.log').read_text()[-3000:]}"
        )


# -------------------------------------------------------------------- comparison


def losses(run: Path) -> dict[int, float]:
    with (run / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def twice_in_an_epoch(ledger: dict[tuple[int, int], list[int]]) -> int:
    counts = Counter((epoch, sample) for (epoch, _), samples in ledger.items() for sample in samples)
    return sum(count - 1 for count in counts.values())


def memory_of(run: Path) -> dict[str, float]:
    """MiB of the first process, at the start and the end of its longest life."""
    rows = [json.loads(line) for line in (run / "memory-rank-0.jsonl").read_text().splitlines()]
    longest = Counter(row["process"] for row in rows).most_common(1)[0][0]
    own = [row["resident"] for row in rows if row["process"] == longest]
    edge = max(1, len(own) // 10)
    start, end = statistics.mean(own[:edge]), statistics.mean(own[-edge:])
    return {"start": round(start, 1), "end": round(end, 1), "growth_percent": round(100 * (end / start - 1), 2)}


def compare(disturbed: Path, undisturbed: Path, faults: list[Fault]) -> dict[str, object]:
    """The figures of the table."""
    found, expected = read_ledger(disturbed), read_ledger(undisturbed)
    wrong = {place for place in expected if sorted(found.get(place, [])) != sorted(expected[place])}
    lost = sum(len(set(expected[place]) - set(found.get(place, []))) for place in wrong)
    ours, theirs = losses(disturbed), losses(undisturbed)
    assert ours.keys() == theirs.keys(), f"other steps are logged: {sorted(ours.keys() ^ theirs.keys())[:9]}"
    return {
        "faults": len(faults),
        "kinds": dict(Counter(fault.kind for fault in faults)),
        "resumed": sum(not fault.hung for fault in faults),
        "hangs": sum(fault.hung for fault in faults),
        "processes left over": sum(fault.left for fault in faults),
        "longest to find a fault (s)": round(max((fault.seconds for fault in faults), default=0.0), 1),
        "steps": len(expected),
        "steps left out": number_left_out(disturbed),
        "samples": sum(map(len, expected.values())),
        "samples lost": lost,
        "samples twice": twice_in_an_epoch(found) - twice_in_an_epoch(expected),
        "largest difference in loss": max(abs(ours[step] - theirs[step]) for step in ours),
        "memory, disturbed (MiB)": memory_of(disturbed),
        "memory, undisturbed (MiB)": memory_of(undisturbed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long faults come")
    parser.add_argument("--every", type=float, default=60, help="seconds between two faults, at least")
    parser.add_argument("--epochs", type=int, default=100, help="of 78 steps; the run goes on to its end")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--out", type=Path, default=Path("soak.json"), help="where the figures go")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        places = [Path(folder, name) for name in ("disturbed", "undisturbed")]
        places[0].mkdir()
        faults = disturbed(places[0], arguments)
        undisturbed(places[1], arguments.epochs, places[0] / RUN / LEFT_OUT)
        figures = compare(places[0] / RUN, places[1] / RUN, faults)
    settings = {name: str(value) for name, value in vars(arguments).items()}
    arguments.out.write_text(
        json.dumps({"settings": settings, "figures": figures, "faults": [asdict(fault) for fault in faults]}, indent=1)
    )
    width = max(map(len, figures))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
