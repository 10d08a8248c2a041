"""R1 of the promises: killed at any moment, the same command goes on as if nothing had happened.

The proof is the strongest there is: final weights and every logged loss are those of the undisturbed run, bit for bit.
A sample that was lost or seen twice, another augmentation or another mask would change them.
"""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mae_lightning.tracking.wandb_file import read_offline_run

ROOT = Path(__file__).parents[2]
RUN = Path("runs/quickstart-pretrain")
COMMAND = [
    sys.executable,
    "-m",
    "mae_lightning",
    "fit",
    "--config=quickstart/pretrain",
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks+=ModelCheckpoint",
    f"--trainer.callbacks.dirpath={RUN / 'checkpoints'}",
    "--trainer.callbacks.filename=last",
    "--trainer.callbacks.enable_version_counter=false",
    "--trainer.callbacks.every_n_train_steps=2",
    "--data.init_args.global_batch_size=250",
    "--model.init_args.warmup_epochs=0",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
]
"""Two epochs of 20 steps, a checkpoint every second one."""

EVERYTHING = "accumulation, a moving average, W&B beside metrics.csv"
SHAPES = {
    "one process": ["--data.init_args.num_workers=0"],
    "one process, two workers": ["--data.init_args.num_workers=2"],
    "two processes": ["--data.init_args.num_workers=0", "--trainer.devices=2", "--trainer.strategy=ddp"],
    EVERYTHING: [
        "--data.init_args.num_workers=0",
        "--data.init_args.max_micro_batch_size=125",
        "--run.wandb=offline",
        "--trainer.callbacks+=mae_lightning.callbacks.WeightEMA",
        "--trainer.callbacks.decay=0.8",
    ],
    "two processes, two workers": ["--data.init_args.num_workers=2", "--trainer.devices=2", "--trainer.strategy=ddp"],
}
KILLS = dict.fromkeys(SHAPES, 5) | {EVERYTHING: 20}
"""Seeded kills of each shape: 20 of the plain ones, 20 of the one that has everything."""


def start(folder: Path, shape: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*COMMAND, *SHAPES[shape]], cwd=folder, env=environment, start_new_session=True, **output)


def await_training(process: subprocess.Popen[str]) -> None:
    """Returns when the run has printed its table, just before its first step."""
    assert process.stdout is not None
    lines = [""]
    while "  folder " not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)


def finish(folder: Path, shape: str) -> None:
    """Runs to the end."""
    process = start(folder, shape)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def finish_timed(folder: Path, shape: str) -> float:
    """Runs to the end; the seconds from the table to the last line of output."""
    with start(folder, shape) as process:
        await_training(process)
        began = time.monotonic()
        output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return time.monotonic() - began


def kill_somewhere(folder: Path, shape: str, seconds: float) -> None:
    """Kills all processes of a run some time after it began to train; if it is done by then, another one earlier."""
    with start(folder, shape) as process:
        await_training(process)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        shutil.rmtree(folder / RUN)
        kill_somewhere(folder, shape, seconds / 2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those of the checkpoint, and where they are averages those that train too."""
    content = torch.load(folder / RUN / "checkpoints/last.ckpt", weights_only=True)
    training = {f"training {name}": value for name, value in content.get("current_model_state", {}).items()}
    return content["state_dict"] | training


def saved_step(folder: Path) -> int:
    """Of the checkpoint that is there; 0 if there is none."""
    path = folder / RUN / "checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)["global_step"] if path.exists() else 0


def losses(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / RUN / "metrics.csv").open() as file:
        return [(row["step"], row["train/loss"], row["val/loss"]) for row in csv.DictReader(file)]


def wandb_losses(folder: Path) -> dict[int, set[float]]:
    """What W&B's own files, one a start, have of each step; a kill costs them what was not yet written."""
    found: dict[int, set[float]] = {}
    for file in (folder / RUN).glob("wandb/offline-run-*/run-*.wandb"):
        for row in read_offline_run(file).history:
            if "train/loss" in row:
                found.setdefault(row["trainer/global_step"], set()).add(row["train/loss"])
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """Runs of each shape that nothing interrupts, made when they are needed."""
    made: dict[str, tuple[Path, float]] = {}

    def run(shape: str) -> tuple[Path, float]:
        if shape not in made:
            folder = tmp_path_factory.mktemp("undisturbed")
            made[shape] = folder, finish_timed(folder, shape)
        return made[shape]

    return run


def seldom(shape: str, seed: int) -> bool:
    return (shape, seed) != ("two processes, two workers", 1)


CASES = [
    pytest.param(shape, seed, marks=[pytest.mark.slow] if seldom(shape, seed) else [])
    for shape in SHAPES
    for seed in range(KILLS[shape])
]


@pytest.mark.parametrize(("shape", "seed"), CASES)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(undisturbed, tmp_path, shape, seed):
    whole, seconds = undisturbed(shape)
    share = (seed + random.Random(f"{shape}{seed}").random()) / KILLS[shape]
    kill_somewhere(tmp_path, shape, seconds=0.6 * share * seconds)  # after that, the program only comes to its end
    print(f"{shape}, {seed}: killed after the checkpoint of step {saved_step(tmp_path)}")
    finish(tmp_path, shape)
    assert losses(tmp_path) == losses(whole)
    assert len(losses(whole)) >= 40
    expected, found = weights(whole), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    if shape == EVERYTHING:
        assert any(name.startswith("training ") for name in expected)
        told, logged = wandb_losses(tmp_path), {int(step): float(loss) for step, loss, _ in losses(whole) if loss}
        assert max(told) == max(logged)
        assert all(figures == {logged[step]} for step, figures in told.items())
