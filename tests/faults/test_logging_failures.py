"""R15: logging that fails never stops a run, and hardly slows it.

Three faults: Weights & Biases cannot be reached at the start, or from some moment on; the disk of the log is full.
"""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from mae_lightning.tracking import build_loggers, loggers, metrics_csv
from mae_lightning.tracking.metrics_csv import MetricsCSV
from mae_lightning.tracking.wandb_file import read_offline_run
from mae_lightning.weights import read_checkpoint

ROOT = Path(__file__).parents[2]
ROWS = 300


@pytest.fixture(autouse=True)
def wandb_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits of a test instead of a run's, a key that no server has to know, and nothing left of it."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(loggers, "START_SECONDS", 3.0)
    monkeypatch.setattr(loggers, "END_SECONDS", 2.0)
    yield
    wandb.teardown()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own lines; W&B logs many."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("mae_lightning")]


def logged(folder: Path) -> list[float]:
    """The figures that W&B's own file in the run's folder has, once it is whole."""
    wandb.teardown()  # a run's end does not wait for its file
    (file,) = [path for path in folder.glob("wandb/*run-*/run-*.wandb") if b"figure" in path.read_bytes()]
    return [row["figure"] for row in read_offline_run(file).history if "figure" in row]


@pytest.mark.parametrize("server", ["that refuses", "that never answers"])
def test_unreachable_at_the_start(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = 1 if server == "that refuses" else listening.getsockname()[1]
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        _, logger = build_loggers(tmp_path, "run", "project", "online")
        for number in range(ROWS):
            logger.log_metrics({"figure": float(number)}, step=number)
        logger.experiment.finish()
    assert time.monotonic() - began < 60  # W&B by itself waits 90 s
    assert logged(tmp_path) == list(range(ROWS))
    (line,) = said(caplog)
    assert line.startswith("Weights & Biases cannot be used, the run is kept offline: ")


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as much as W&B needs to begin a run."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        bucket = {"id": "b", "name": "b", "displayName": "b", "config": "{}", "historyLineCount": 0, "project": project}
        answer = json.dumps({"data": {"model": {"bucket": None}, "upsertBucket": {"bucket": bucket, "inserted": True}}})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *what: object) -> None:
        """Says nothing."""


def test_unreachable_in_mid_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    _, logger = build_loggers(tmp_path, "run", "project", "online")
    logger.log_metrics({"figure": 0.0}, step=0)
    server.shutdown()
    server.server_close()
    began = time.monotonic()
    for number in range(1, ROWS):
        logger.log_metrics({"figure": float(number)}, step=number)
    assert time.monotonic() - began < 20
    logger.experiment.finish()
    assert time.monotonic() - began < 40  # by itself for ever
    assert said(caplog) == []
    assert list(tmp_path.glob("wandb/run-*"))  # it was online
    assert logged(tmp_path) == list(range(ROWS))


def test_a_logger_that_died(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each figure is tried, none stops the run, and one line says so."""
    _, logger = build_loggers(tmp_path, "run", "project", "offline")
    logger.experiment.finish()
    for step in range(3):
        logger.log_metrics({"figure": 1.0}, step=step)
        logger.log_image("picture", ["/nowhere.png"], step=step)
    (line,) = said(caplog)
    assert line.startswith("logging to Weights & Biases failed, and the run goes on without: ")


def test_rows_are_kept_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails of a write: the file stays as it was, and later has every row once."""
    log, path = MetricsCSV(tmp_path), tmp_path / "metrics.csv"
    log.log_metrics({"a": 0.5}, step=0)
    log.save()
    whole = path.read_text()

    class Full(metrics_csv.csv.DictWriter):
        def writerows(self, rows: object) -> None:
            self.writer.writerow(["half a row"])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(metrics_csv.csv, "DictWriter", Full)
        for step, row in enumerate(({"a": 1.5}, {"a": 2.5, "b": 1.0}), 1):  # one appends, one needs another header
            log.log_metrics(row, step=step)
            log.save()
            assert path.read_text() == whole
    (line,) = said(caplog)
    assert line.endswith("metrics.csv failed, and the run goes on without: [Errno 28] No space left on device")
    log.save()
    assert path.read_text().splitlines() == ["a,b,step", "0.5,,0", "1.5,,1", "2.5,1.0,2"]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


RUN = [
    "--config=quickstart/pretrain",
    "--config=trainer/cpu",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.warmup_epochs=0",
    "--data.init_args.global_batch_size=500",
    "--data.init_args.num_workers=0",
    "--run.name=run",
    "--run.wandb=offline",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks=in_run.FillDisk",
    "--trainer.callbacks.folder=runs/run",
    "--trainer.callbacks.step=4",
]
STEPS = 10


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny file system needs root")
def test_the_disk_of_the_log_is_full(tmp_path: Path) -> None:
    """A whole run whose folder is full after four steps; its checkpoints lie elsewhere."""
    folder = tmp_path / "runs/run"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (tmp_path / "checkpoints").mkdir()
        (folder / "checkpoints").symlink_to(tmp_path / "checkpoints")
        done = subprocess.run(
            [sys.executable, "-m", "mae_lightning", "--allow-import", "in_run", "fit", *RUN],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert (folder / "filler").stat().st_size > 2**20
        assert "val/loss" not in (folder / "metrics.csv").read_text()  # a column that came too late
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert done.stderr.count("metrics.csv failed, and the run goes on without") == 1
    assert done.stderr.count("goodput.json failed, and the run goes on without") == 1
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == STEPS
