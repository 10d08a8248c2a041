"""``sweep``: the trials of a W&B sweep file, run here."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mae_lightning.commands.configs import find_config
from mae_lightning.commands.stages import last_word, permissions, read_json, terminable
from mae_lightning.commands.sweep_file import combination_name, read_sweep, shell_line
from mae_lightning.commands.trial import TRIAL, Trial, parse
from mae_lightning.secrets import HIDDEN

EPILOG = """\
The same file runs with W&B's server: wandb sweep FILE, then wandb agent ID on any number of machines. Options that are
none of these go to every trial: --all.trainer.max_epochs=2, --run.wandb=off. Stopped, the same command runs what is
missing: a finished trial stays, an interrupted one goes on.
"""
ENDING_SECONDS = 90.0


@dataclass(frozen=True)
class Job:
    """One trial of the sweep.

    Attributes:
        words: What follows ``trial`` on its command line.
        trial: What that asks for.
    """

    words: list[str]
    trial: Trial

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.trial.folder / "trial.log"

    @property
    def is_finished(self) -> bool:
        """Whether it has been run to its end with these very settings.

        Raises:
            ValueError: Its folder holds a trial of other settings.
        """
        path = self.trial.folder / TRIAL
        if not path.is_file():
            return False
        record = read_json(path)
        old, new = record["parameters"], self.trial.parameters
        hidden = {name: new[name] for name, value in old.items() if value == HIDDEN and name in new}
        if old | hidden != new:
            raise ValueError(f"{self.trial.folder} holds a trial of other settings; give the sweep another --dir")
        return bool(record["finished"]) and old == new  # run again, it writes down what was hidden and trains nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", metavar="FILE", help="sweep file, or a shipped one: sweeps/quickstart/figure_5")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="of the trials (default: runs/NAME of the sweep)")
    jobs_help = "trials at a time, each with its share of the cores (default: 1)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=jobs_help)
    parser.add_argument("--dry-run", action="store_true", help="print the commands, one a line")
    parser.add_argument("--trials", type=int, metavar="N", help="how many to draw of a random search, or run of a grid")
    parser.add_argument("--seed", type=int, help="of a random search (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Runs what is missing; 1 when a trial failed."""
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: at least one trial runs at a time")
    if args.trials is not None and args.trials < 1:
        raise ValueError(f"--trials {args.trials}: at least one trial is run")
    args.settings += permissions(args.allowed_imports)
    jobs = plan(args)
    if args.dry_run:
        for job in jobs:
            print(shell_line(job.words))
        return 0
    missing = [job for job in jobs if not job.is_finished]
    print(f"{len(jobs)} trials, {len(jobs) - len(missing)} of them finished before", flush=True)
    with terminable():
        failed = _Pool(missing, len(jobs), args.jobs).run()
    for job in failed:
        print(f"failed: {job.trial.folder.name}: {last_word(job.log)}; log: {job.log}")
    print(f"python -m mae_lightning report {jobs[0].trial.folder.parent}: {len(jobs) - len(failed)} finished trials")
    return 1 if failed else 0


def plan(args: argparse.Namespace) -> list[Job]:
    """Every trial of the sweep, each checked against the grammar before any is run."""
    for option in (word.partition("=")[0] for word in args.settings):
        if option in ("--run.dir", "--run.name"):
            raise ValueError(f"sweep: not {option} but --dir FOLDER; trials are named after their values")
    sweep = read_sweep(_file(args))
    if args.seed is not None and sweep.method == "grid":
        raise ValueError("--seed is of a random search; a grid's seeds are the values of its parameter seed")
    combinations = sweep.combinations(args.trials, args.seed or 0)
    folder = args.dir or Path("runs") / sweep.name
    constant = [name for name, parameter in sweep.parameters.items() if _is_constant(parameter)]
    jobs = []
    for number, values in enumerate(combinations):
        name = combination_name(values, constant)
        if sweep.method == "random":
            name = f"{number:03d},{name}"
        words = [*sweep.words(values), *args.settings, f"--run.dir={folder}", f"--run.name={name}"]
        jobs.append(Job(words, parse(words)))
    if len({job.trial.folder for job in jobs}) < len(jobs):
        raise ValueError(f"{args.file}: two trials would have one name; give their values different names or numbers")
    return jobs


def _file(args: argparse.Namespace) -> Path:
    """The sweep file; a setting's value that stands apart from it, before FILE, was taken for the file."""
    try:
        return find_config(args.file)
    except FileNotFoundError as error:
        apart = any(word.startswith("--") and "=" not in word for word in args.settings)
        hint = "; FILE stands before the settings, or write them as --KEY=VALUE" if apart else ""
        raise FileNotFoundError(f"{error}{hint}") from error


def _is_constant(parameter: dict[str, object]) -> bool:
    values = parameter.get("values")
    return "value" in parameter or (isinstance(values, list) and len(values) == 1)


def environment(width: int) -> dict[str, str]:
    """A trial's: each of several at a time has its share of the cores, as threads of more than there are only wait.

    Args:
        width: How many run side by side. A number of threads that the user gave stays.
    """
    share = max(1, len(os.sched_getaffinity(0)) // width)
    return ({"OMP_NUM_THREADS": str(share)} if width > 1 else {}) | os.environ


class _Pool:
    """Runs trials side by side and says how far it is."""

    def __init__(self, jobs: Sequence[Job], total: int, width: int) -> None:
        self.jobs, self.total, self.width = jobs, total, width
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped, self._start = Lock(), False, time.monotonic()

    def run(self) -> list[Job]:
        """The trials that failed."""
        failed: list[Job] = []
        with ThreadPoolExecutor(self.width) as threads:
            futures: dict[Future[int], Job] = {threads.submit(self._trial, job): job for job in self.jobs}
            try:
                for number, future in enumerate(as_completed(futures), start=1):
                    failed += [futures[future]] if future.result() else []
                    self._say(futures[future], number, len(failed))
            except BaseException:
                self._stop(futures)
                raise
        return failed

    def _trial(self, job: Job) -> int:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    return 1
                process = subprocess.Popen(
                    [sys.executable, "-m", "mae_lightning", "trial", *job.words],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=environment(self.width),
                    start_new_session=True,  # an interruption reaches it once, through this process
                )
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        return code

    def _stop(self, futures: dict[Future[int], Job]) -> None:
        for future in futures:
            future.cancel()
        with self._lock:
            self._stopped = True
            processes = list(self._running)
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + ENDING_SECONDS
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _say(self, job: Job, number: int, failed: int) -> None:
        seconds = (time.monotonic() - self._start) / number * (len(self.jobs) - number)
        done = self.total - len(self.jobs) + number
        note = f", {failed} failed" if failed else ""
        print(f"{done} of {self.total}{note}: {job.trial.folder.name}; about {seconds / 60:.0f} min left", flush=True)
