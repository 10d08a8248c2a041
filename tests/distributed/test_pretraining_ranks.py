"""One process, accumulation and two processes train the same run and print the same figures."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMON = [
    "--run.name=run",
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.global_batch_size=1000",
    "--model.init_args.warmup_epochs=0",
]
MAE = [
    "--config=quickstart/pretrain",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
]
SWIN = [
    "--config=quickstart/swin",
    "--model.init_args.encoder={dim: 8, depths: [1, 1, 1], num_heads: 1, patch_size: 2}",
]
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
STEPS = 5
"""Of 5,000 images in global batches of 1,000."""


def logged(folder: Path, recipe: list[str], *options: str) -> list[dict[str, str]]:
    """The rows of metrics.csv after a short run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mae_lightning", "fit", *recipe, *COMMON, *options]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    with (folder / "runs/run/metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return logged(tmp_path_factory.mktemp("alone"), MAE)


def test_two_processes(alone: list[dict[str, str]], tmp_path: Path) -> None:
    """Losses to rounding; held-out figures of the whole set, k-NN to two of its 1,000 queries."""
    together = logged(tmp_path, MAE, *TWO)
    for name in ("val/loss", "val/loss_zero", "val/loss_visible_mean", "val/loss_position_mean", "val/psnr"):
        assert values(together, name) == pytest.approx(values(alone, name), rel=1e-5), name
    for name in ("val/knn", "val/knn_raw_pixels", "val/knn_untrained"):
        assert values(together, name) == pytest.approx(values(alone, name), abs=0.002), name
    assert len(values(together, "train/loss")) == STEPS
    assert values(together, "train/loss") == pytest.approx(values(alone, "train/loss"), rel=1e-5)
    assert values(together, "train/gradient_norm") == pytest.approx(values(alone, "train/gradient_norm"), rel=1e-4)


def test_accumulation(alone: list[dict[str, str]], tmp_path: Path) -> None:
    accumulated = logged(tmp_path, MAE, "--data.init_args.max_micro_batch_size=250")
    assert values(accumulated, "train/lr") == pytest.approx(values(alone, "train/lr"))
    assert values(accumulated, "val/loss") == pytest.approx(values(alone, "val/loss"), rel=1e-5)
    assert values(accumulated, "train/loss") == pytest.approx(values(alone, "train/loss"), rel=1e-5)
    assert values(accumulated, "train/gradient_norm")[:STEPS] == pytest.approx(
        values(alone, "train/gradient_norm"), rel=1e-4
    )


@pytest.mark.slow
def test_two_processes_train_the_same_swin(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone = logged(tmp_path / "one", SWIN, "--trainer.limit_train_batches=2")
    together = logged(tmp_path / "two", SWIN, "--trainer.limit_train_batches=2", *TWO)
    for name in ("train/loss", "val/loss", "val/loss_zero", "val/loss_visible_mean", "val/psnr"):
        assert values(together, name) == pytest.approx(values(alone, name), rel=1e-5), name
    assert len(values(alone, "train/loss")) == 2
    assert values(together, "train/gradient_norm") == pytest.approx(values(alone, "train/gradient_norm"), rel=1e-4)
    assert values(together, "val/knn") == pytest.approx(values(alone, "val/knn"), abs=0.002)
