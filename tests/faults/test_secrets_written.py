"""R13: six tokens, each in another place, of which no file and no line has any.

In 1 a shard's URL as user, 2 as query, 3 a data argument of a config, 4 a checkpoint's URL, 5 the command line, 6 the
environment.
"""

import base64
import functools
import http.server
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
import wandb

import mae_lightning
from mae_lightning.__main__ import main
from mae_lightning.tasks import MAEPretraining
from mae_lightning.tracking import build_loggers

ROOT = Path(mae_lightning.__file__).parents[1]
TOKENS = {place: f"canary{place}" for place in range(1, 7)}
SMALL = [
    "--config=quickstart/pretrain",
    "--config=trainer/cpu",
    "--run.name=run",
    "--run.wandb=offline",
    "--trainer.max_epochs=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.global_batch_size=8",
    "--data.init_args.image_size=8",
    "--model.init_args.warmup_epochs=0",
    "--model.init_args.encoder={dim: 8, depth: 1, num_heads: 1, patch_size: 4}",
    "--model.init_args.decoder.init_args.dim=8",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.decoder.init_args.num_heads=1",
]

_spec = importlib.util.spec_from_file_location("shard_making", ROOT / "tests/unit/data/shard_making.py")
assert _spec is not None
assert _spec.loader is not None
shard_making = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shard_making)


class Guarded(http.server.SimpleHTTPRequestHandler):
    """Gives files below /user to those with a password, and those below /query to those with a signature."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        said = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        given = (
            said.removeprefix("me:") if parts.path.startswith("/user") else parse_qs(parts.query).get("sig", [""])[0]
        )
        if given in TOKENS.values():
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *what: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same shard and manifest under two protections; the working directory is another."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    members = {f"{number:02}.npy": shard_making.npy(image) for number, image in enumerate(pixels)}
    for folder in ("user", "query"):
        (tmp_path / "served" / folder).mkdir(parents=True)
        shard_making.write_tar(tmp_path / "served" / folder / "a.tar", members)
    handler = functools.partial(Guarded, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        assert main(["index", str(tmp_path / "served/user/a.tar"), "--out", str(tmp_path / "served/user")]) == 0
        yield f"127.0.0.1:{served.server_port}"
        served.shutdown()


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where a token stands: files below a folder, links to files elsewhere among them, and texts."""
    files = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    contents = {str(file): file.read_bytes() for file in files} | {text[:80]: text.encode() for text in texts}
    return [name for name, content in contents.items() if any(token.encode() in content for token in TOKENS.values())]


def test_a_manifest_keeps_neither_user_nor_query(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 and 2; read again with what the environment has for the shards, and for no others."""
    capsys.readouterr()
    assert main(["index", f"http://me:{TOKENS[1]}@{server}/user/a.tar", "--out", "one"]) == 0
    assert main(["index", f"http://{server}/query/a.tar?sig={TOKENS[2]}", "--out", "two"]) == 0
    out = capsys.readouterr().out
    assert (
        out.count("the manifest names the shards without user and query: to read them, set MAE_LIGHTNING_URL_SEC") == 2
    )
    assert leaks(Path(), out) == []
    assert f"http://{server}/user/a.tar" in Path("one/manifest.json").read_text()
    assert main(["verify", "one"]) == 2
    assert "HTTP 403" in capsys.readouterr().out
    known = f"http://me:{TOKENS[1]}@{server}/user http://{server}/query/?sig={TOKENS[2]}"
    monkeypatch.setenv("MAE_LIGHTNING_URL_SECRETS", known)
    assert [main(["verify", name, "--decode"]) for name in ("one", "two")] == [0, 0]
    monkeypatch.setenv("MAE_LIGHTNING_URL_SECRETS", known.replace("/user", "/us").replace("127.0.0.1", "localhost"))
    assert [main(["verify", name]) for name in ("one", "two")] == [2, 2]
    assert leaks(Path(), *capsys.readouterr()) == []


def test_wandb_keeps_a_command_line_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5, in its own file and its logs; the program keeps its own."""
    words = ["fit", f"--data.init_args.train=https://me:{TOKENS[5]}@host/manifest.json", "--model.api_key", TOKENS[5]]
    monkeypatch.setattr(sys, "argv", words)
    _, logger = build_loggers(tmp_path, "run", "project", "offline")
    logger.log_metrics({"figure": 1.0}, step=0)
    logger.experiment.finish()
    wandb.teardown()
    assert sys.argv is words
    assert leaks(tmp_path) == []
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"--data.init_args.train=https://***@host/manifest.json" in kept.read_bytes()


def test_benchmarks_and_predictions_name_their_data_without_secrets(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """1, of the data that two commands name in what they print and keep."""
    task = MAEPretraining("nano/4", image_size=(8, 8), mean=(0.5,) * 3, std=(0.2,) * 3)
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, "mae.ckpt")
    url = f"http://me:{TOKENS[1]}@{server}/user/manifest.json"
    shown = f"http://{server}/user/manifest.json"
    capsys.readouterr()
    options = ["--image-size=8", "--images=8", "--rounds=7", "--out=figures.json"]
    assert main(["bench", "data", "--data", url, *options]) == 0
    assert main(["predict", "mae.ckpt", "--data", url, "--out", "features.csv", "--what", "features"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count(shown) == 2
    assert shown in Path("figures.json").read_text()
    assert leaks(Path(), *printed) == []


@pytest.mark.slow
def test_a_run_writes_none_down(server: str) -> None:
    """3, 5 and 6: config, checkpoints, metrics, ledger, W&B's file and logs, what is printed."""
    assert main(["index", f"http://{server}/query/a.tar?sig={TOKENS[2]}", "--out", "far"]) == 0
    Path("mine.yaml").write_text(
        f"data: {{init_args: {{predict: 'http://me:{TOKENS[3]}@{server}/user/manifest.json', val: far}}}}"
    )
    train = f"--data.init_args.train=http://me:{TOKENS[5]}@{server}/user/manifest.json"
    environment = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MAE_LIGHTNING_URL_SECRETS": f"http://{server}/query?sig={TOKENS[6]}",
        "AWS_SECRET_ACCESS_KEY": TOKENS[6],
    }
    done = subprocess.run(
        [sys.executable, "-m", "mae_lightning", "fit", *SMALL, "--config=mine.yaml", train],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert leaks(Path("runs"), done.stdout, done.stderr) == []
    (kept,) = Path("runs/run").glob("wandb/offline-run-*/run-*.wandb")
    assert f"--data.init_args.train=http://***@{server}/user/manifest.json".encode() in kept.read_bytes()
    assert f"http://***@{server}/user/manifest.json" in Path("runs/run/config.yaml").read_text()
    assert Path("runs/run/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize(
    "command",
    [
        "validate --config=quickstart/pretrain --ckpt_path={}",
        "fit --config=quickstart/finetune --model.init_args.init_from={}",
        "evaluate {} --data fashion_mnist",
        "inspect {}",
        "convert {} --to timm --out out",
        "pack {} out",
        "verify {}",
        "predict {} --data fashion_mnist",
    ],
)
def test_errors_name_none(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4: whatever is not there, or cannot be had, is named without its secrets."""
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # see tests/cli/conftest.py
    url = f"http://me:{TOKENS[4]}@127.0.0.1:1/a.ckpt?sig={TOKENS[4]}"
    assert main(command.format(url).split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert leaks(tmp_path, *printed) == []
