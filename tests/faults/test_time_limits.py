"""R12: whatever hangs or dies is found within a time limit, with the rank and the stacks, and no checkpoint suffers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from grey_shard import write_grey_shard
from small_run import DDP, ON_CPU, SHAPES, STEP, fit

from mae_lightning.__main__ import main
from mae_lightning.callbacks.time_limits import EXPIRED_CODE, GRACE
from mae_lightning.strategies.durable import is_whole
from mae_lightning.weights import read_checkpoint

RUN = ["--trainer.max_epochs=200", *ON_CPU]
LIMIT = 5
RANKS = [*DDP, "--data.init_args.num_workers=0"]
SHARDED = [*SHAPES["fsdp"], "--data.init_args.num_workers=0"]
WORKERS = ["--trainer.devices=1", "--data.init_args.num_workers=2"]
CASES = {
    "1 kill a rank": (RANKS, "last", "SIGKILL", 2, "another process of the run is gone"),
    "2 stop a rank": (RANKS, "last", "SIGSTOP", EXPIRED_CODE, f"was not done within {LIMIT} s (--run.limits.step)"),
    "2 stop the first rank": (RANKS, "first", "SIGSTOP", -9, f"was not done within {LIMIT} s (--run.limits.step)"),
    "1 kill a rank of FSDP2": (SHARDED, "last", "SIGKILL", 2, "another process of the run is gone"),
    "2 stop a rank of FSDP2": (
        SHARDED,
        "last",
        "SIGSTOP",
        EXPIRED_CODE,
        f"not done within {LIMIT} s (--run.limits.step)",
    ),
    "3 kill a worker": (WORKERS, "worker", "SIGKILL", 2, "DataLoader worker (pid"),
    "4 stop a worker": (WORKERS, "worker", "SIGSTOP", EXPIRED_CODE, f"within {LIMIT} s (--run.limits.read)"),
}
ORDINARY = ("2 stop a rank", "3 kill a worker")


def train(folder: Path, *options: str) -> tuple[CompletedProcess[str], float]:
    """Trains until it ends; and the time when it did."""
    done = fit(folder, *RUN, *options, timeout=120)
    return done, time.time()


def check_checkpoint(run: Path) -> int:
    """It is whole; its step."""
    checkpoint = run / "checkpoints/last.ckpt"
    assert is_whole(checkpoint)
    content = read_checkpoint(checkpoint)
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values() if torch.is_tensor(tensor))
    return int(content["global_step"])


@pytest.mark.parametrize(
    "case", [case if case in ORDINARY else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_process_that_is_killed_or_stopped_is_found(case: str, tmp_path: Path) -> None:
    options, target, signal, code, line = CASES[case]
    stop = [
        "--trainer.callbacks=in_run.StopAt",
        f"--trainer.callbacks.signal={signal}",
        f"--trainer.callbacks.target={target}",
        f"--trainer.callbacks.after={STEP}",
        f"--run.limits={{step: {LIMIT}, read: {LIMIT}}}",
    ]
    done, ended = train(tmp_path, *options, *stop)
    assert done.returncode == code, done.stderr[-3000:]
    run = tmp_path / "runs/run"
    survivor = 1 if target == "first" else 0
    stacks = run / f"stacks-rank-{survivor}.txt"
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ") and line in text]
    assert len(errors) == 1, done.stderr[-3000:]
    assert f"rank {survivor}: " in errors[0] or options is WORKERS
    assert f"stacks-rank-{survivor}.txt" in errors[0]
    text = stacks.read_text()
    assert text.startswith(f"rank {survivor}: ")
    assert line in text
    assert "most recent call first" in text
    assert "time_limits.py" in text  # the watchdog's own thread is among them
    if case == "4 stop a worker":
        assert "is stopped" in text
    hit = (run / "struck").stat().st_mtime
    print(f"{case}: ended {ended - hit:.1f} s after the signal")
    assert ended - hit < LIMIT + 2 * GRACE + 5  # the worker that torch itself looks for every 5 s
    assert check_checkpoint(run) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options", "target", "line"),
    [
        ("validate", RANKS, "last", f"what follows the validation was not done within {LIMIT} s (--run.limits.other)"),
        ("test", WORKERS, "worker", f"no batch came for the test within {LIMIT} s (--run.limits.read)"),
    ],
)
def test_what_hangs_while_a_model_is_judged_is_found(
    command: str, options: list[str], target: str, line: str, tmp_path: Path
) -> None:
    data = ["--data.init_args.val=fashion_mnist:val", *options]
    done, _ = train(tmp_path, *data, "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    assert done.returncode == 0, done.stderr[-3000:]
    stop = [
        "--data.init_args.global_batch_size=50",
        "--trainer.callbacks=in_run.StopAt",
        "--trainer.callbacks.signal=SIGSTOP",
        "--trainer.callbacks.moment=validation",
        f"--trainer.callbacks.target={target}",
        f"--run.limits={{step: {LIMIT}, read: {LIMIT}, other: {LIMIT}}}",
    ]
    done = fit(tmp_path, *ON_CPU, *data, *stop, timeout=120, command=command)
    assert done.returncode == EXPIRED_CODE, done.stderr[-3000:]
    errors = [text for text in done.stderr.splitlines() if text.startswith(f"error: rank 0: {line}")]
    assert len(errors) == 1, done.stderr[-3000:]
    assert errors[0].endswith("; the same command begins anew")
    assert "most recent call first" in (tmp_path / "runs/run/stacks-rank-0.txt").read_text()


class Answering(SimpleHTTPRequestHandler):
    """Serves files until it is told to accept and say nothing any more."""

    silence = threading.Event()
    over = threading.Event()

    def do_GET(self) -> None:
        if self.silence.is_set():
            self.over.wait()
        else:
            super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Answering, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        Answering.over.set()
        server.shutdown()


@pytest.mark.slow
def test_a_server_that_accepts_and_never_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "served").mkdir()
    write_grey_shard(tmp_path / "served/shard-0.tar", 1000)
    with serving(tmp_path / "served") as address:
        assert main(["index", f"{address}/shard-0.tar", "--out", "index"]) == 0
        threading.Thread(target=silence_after, args=(tmp_path / "runs/run/checkpoints/last.ckpt",), daemon=True).start()
        done, ended = train(tmp_path, *WORKERS, "--data.init_args.train=index", f"--run.limits.read={LIMIT}")
    assert done.returncode == EXPIRED_CODE, done.stderr[-3000:]
    text = (tmp_path / "runs/run/stacks-rank-0.txt").read_text()
    assert f"within {LIMIT} s (--run.limits.read)" in text
    print(f"5 a silent server: ended {ended - (tmp_path / 'silent').stat().st_mtime:.1f} s after it fell silent")
    assert ended - (tmp_path / "silent").stat().st_mtime < LIMIT + GRACE + 5
    assert check_checkpoint(tmp_path / "runs/run") >= 2


def silence_after(checkpoint: Path) -> None:
    """The server falls silent once there is a checkpoint."""
    while not checkpoint.exists():
        time.sleep(0.05)
    Path("silent").touch()
    Answering.silence.set()
