import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from grey_shard import write_grey_shard

import mae_lightning
from mae_lightning.__main__ import main

PACKAGE_FOLDER = Path(mae_lightning.__file__).parents[1]


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs the program in this process, in an empty folder."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    # Lightning 2.6 calls jsonargparse by names that version 5 takes away: for Lightning to change
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def program(here: Path) -> Callable[..., Outcome]:
    """Runs the program as a process of its own, in an empty folder, without what W&B left in this process."""

    def run(*arguments: str, command: tuple[str, ...] = ("-m", "mae_lightning")) -> Outcome:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environment = inherited | {"PYTHONPATH": str(PACKAGE_FOLDER), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command, *arguments], capture_output=True, text=True, env=environment, timeout=1200
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


SMALL = (
    "--config=quickstart/pretrain",
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.global_batch_size=8",
    "--model.init_args.warmup_epochs=0",
    "--model.init_args.encoder={dim: 8, depth: 1, num_heads: 1, patch_size: 4}",
    "--model.init_args.decoder.init_args.dim=8",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.decoder.init_args.num_heads=1",
)


@pytest.fixture(scope="session")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen labelled grey images."""
    return write_grey_shard(tmp_path_factory.mktemp("shards") / "grey-000.tar", 16, 2)


@pytest.fixture
def held_out(shard: Path, here: Path) -> Path:
    """The same images in a file of their own, as nothing is judged on its own training data."""
    return shutil.copy(shard, here / "held-out.tar")


@pytest.fixture
def small(shard: Path) -> tuple[str, ...]:
    """The quickstart cut down to two steps of a tiny model on a few images."""
    return (*SMALL, f"--data.init_args.train={shard}", f"--data.init_args.val={shard}")
