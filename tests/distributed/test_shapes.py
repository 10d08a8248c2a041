"""The same run in every shape: one process, DDP and FSDP2 print the same figures, and go on from each other's state."""

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mae_lightning.callbacks.preemption import MARKER, REQUEUE_CODE

ROOT = Path(__file__).parents[2]
COMMON = [
    "--run.name=run",
    "--run.wandb=off",
    "--trainer.max_epochs=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.global_batch_size=500",
    "--model.init_args.warmup_epochs=0",
]
MAE = [
    "--config=quickstart/pretrain",
    "--model.init_args.encoder={dim: 16, depth: 2, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--data.init_args.val=null",
]
CLASSIFIER = [
    "--config=quickstart/finetune",
    "--model.init_args.init_from=null",
    "--model.init_args.encoder={dim: 16, depth: 2, num_heads: 2, patch_size: 7}",
    "--data.init_args.label_fraction=0.5",
]
STEPS = 10
"""Of 5,000 images in global batches of 500."""


def shape(name: str) -> list[str]:
    """The options of a shape; the shipped trainer files, on the CPU."""
    on_cpu = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    two = ["--trainer.devices=2"]
    return {
        "one": ["--config=trainer/cpu"],
        "accumulated": ["--config=trainer/cpu", "--data.init_args.max_micro_batch_size=250"],
        "ddp": ["--config=trainer/ddp", *on_cpu, *two],
        "ddp_accumulated": ["--config=trainer/ddp", *on_cpu, *two, "--data.init_args.max_micro_batch_size=125"],
        "full": ["--config=trainer/fsdp", *on_cpu, *two],
        "sharded": ["--config=trainer/fsdp", *on_cpu, *two, "--trainer.strategy.init_args.checkpoint=sharded"],
    }[name]


def fit(folder: Path, recipe: Sequence[str], options: Sequence[str], *, stopped: bool = False) -> str:
    """Runs to the end, or to the first step that it is told to go after; what it printed."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"}
    stop = ["--trainer.callbacks=in_run.StopAt"] if stopped else []
    command = [sys.executable, "-m", "mae_lightning", "--allow-import", "in_run", "fit", *recipe, *options, *COMMON]
    done = subprocess.run(
        [*command, *stop], cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == (REQUEUE_CODE if stopped else 0), done.stderr[-3000:]
    assert (folder / "runs/run" / MARKER).is_file() == stopped
    return done.stdout


def figures(folder: Path, name: str) -> dict[int, float]:
    """A column of metrics.csv by step; each step stands once."""
    with (folder / "runs/run/metrics.csv").open() as file:
        rows = [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of one process that nobody stopped."""
    folder = tmp_path_factory.mktemp("alone")
    fit(folder, MAE, shape("one"))
    return figures(folder, "train/loss")


@pytest.mark.slow
def test_a_run_goes_on_in_any_shape(alone: dict[int, float], tmp_path: Path) -> None:
    """Stopped four times: one process, sharded, DDP, gathered, one process; the losses of the run that never was."""
    for name in ("one", "sharded", "ddp", "full"):
        fit(tmp_path, MAE, shape(name), stopped=True)
        assert (tmp_path / "runs/run/checkpoints/last.ckpt").is_dir() == (name == "sharded")
    assert "goes on after" in fit(tmp_path, MAE, shape("one"))
    losses = figures(tmp_path, "train/loss")
    assert list(losses) == list(range(STEPS))
    assert losses == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_pretraining_under_fsdp(alone: dict[int, float], tmp_path: Path) -> None:
    fit(tmp_path, MAE, [*shape("sharded"), "--config=trainer/activation_checkpointing"])
    assert figures(tmp_path, "train/loss") == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_a_classifier_in_every_shape(tmp_path: Path) -> None:
    """Layer decay makes a group of parameters a layer: none takes another's state."""
    found = {}
    for name in ("accumulated", "ddp_accumulated", "full"):
        (tmp_path / name).mkdir()
        fit(tmp_path / name, CLASSIFIER, shape(name))
        columns = ("val/loss", "train/loss", "train/gradient_norm")
        found[name] = {column: list(figures(tmp_path / name, column).values()) for column in columns}
        assert len(found[name]["train/loss"]) == STEPS / 2
    for column, values in found["accumulated"].items():
        assert found["ddp_accumulated"][column] == pytest.approx(values, rel=1e-4)
        assert found["full"][column] == pytest.approx(values, rel=1e-4)


def test_shipped_files_name_what_the_others_leave() -> None:
    """Trainer files hold what must not change the result: nothing of model or data."""
    for path in sorted((ROOT / "configs/trainer").glob("*.yaml")):
        assert yaml.safe_load(path.read_text()).keys() == {"trainer"}, path
