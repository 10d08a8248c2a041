"""R9 with --run.recover=skip: a step whose numbers are none is left out, and all else is as it would have been."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from in_run import read_ledger

from mae_lightning.callbacks.left_out import FILE, MOST
from mae_lightning.weights import read_checkpoint

ROOT = Path(__file__).parents[2]
RUN = [
    "--config=quickstart/pretrain",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.warmup_epochs=0",
    "--data.init_args.global_batch_size=500",
    "--data.init_args.val=null",
    "--data.init_args.num_workers=0",
    "--run.name=run",
    "--run.wandb=off",
    "--run.recover=skip",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
]
ON_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
SHAPES = {
    "one": ["--config=trainer/cpu"],
    "accumulated": ["--config=trainer/cpu", "--data.init_args.max_micro_batch_size=250"],
    "ddp": ["--config=trainer/ddp", *ON_CPU, "--trainer.devices=2"],
    "fsdp": ["--config=trainer/fsdp", *ON_CPU, "--trainer.devices=2"],
}
STEPS = 20
STEP = 13
"""In the second epoch, so that there is a checkpoint before it."""


def fit(folder: Path, shape: str, steps: list[int], launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Trains with numbers planted in these steps, on the last process alone."""
    plant = [
        "--trainer.callbacks=in_run.SampleLedger",
        "--trainer.callbacks+=in_run.PlantNumber",
        "--trainer.callbacks.where=gradient",
        "--trainer.callbacks.value=nan",
        f"--trainer.callbacks.step={steps}",
    ]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            *launcher,
            "mae_lightning",
            "--allow-import=in_run",
            "fit",
            *RUN,
            *SHAPES[shape],
            *plant,
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def left_out(run: Path) -> dict[int, list[str]]:
    return {entry["step"]: entry["samples"] for entry in json.loads((run / FILE).read_text())}


def logged_steps(run: Path) -> list[str]:
    lines = (run / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    return [row["step"] for row in rows if row["train/loss"]]


def check(run: Path, error: str) -> None:
    """The step's batch is named, all others of both epochs count exactly once."""
    assert left_out(run).keys() == {STEP}, error
    named = [key for file in run.glob(f"non_finite-step-{STEP}-rank-*.txt") for key in file.read_text().split()]
    assert sorted(left_out(run)[STEP]) == sorted(named)
    assert len(set(named)) == 500
    assert read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == STEPS
    ledger = read_ledger(run)
    assert ledger.keys() == {(step // 10, step) for step in range(STEPS) if step != STEP}
    for epoch in (0, 1):
        samples = [index for (at, _), indices in ledger.items() if at == epoch for index in indices]
        assert len(samples) == len(set(samples)) == (5000 if epoch == 0 else 4500)
    assert logged_steps(run) == [str(step) for step in range(STEPS) if step != STEP]


def test_all_but_the_step_is_as_it_would_have_been(tmp_path: Path) -> None:
    """Bit for bit what a run comes to that is told of the step from the start, and is not disturbed."""
    done = fit(tmp_path, "one", [STEP])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"step {STEP} is left out (1 of at most {MOST} in a run)" in done.stdout
    assert "500 samples skipped" in done.stdout
    run = tmp_path / "runs/run"
    check(run, done.stderr)
    told = tmp_path / "told/runs/run"
    told.mkdir(parents=True)
    for file in (run / FILE, *run.glob("non_finite-*")):
        shutil.copy(file, told)
    assert fit(tmp_path / "told", "one", [STEP]).returncode == 0  # planted where nothing is computed
    check(told, "")
    weights, expected = (read_checkpoint(place / "checkpoints/last.ckpt")["state_dict"] for place in (run, told))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "launcher"),
    [
        ("accumulated", ()),
        ("ddp", ()),
        ("ddp", ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")),
        ("fsdp", ()),
    ],
)
def test_processes_agree(shape: str, launcher: tuple[str, ...], tmp_path: Path) -> None:
    done = fit(tmp_path, shape, [STEP], launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path / "runs/run", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["one", "ddp"])
def test_after_three_it_stops(shape: str, tmp_path: Path) -> None:
    done = fit(tmp_path, shape, [3, 4, 13, 15])
    assert done.returncode == 2, done.stderr[-3000:]
    assert "steps 3, 4, 13 were left out already" in done.stderr
    assert left_out(tmp_path / "runs/run").keys() == {3, 4, 13}
    assert read_checkpoint(tmp_path / "runs/run/checkpoints/last.ckpt")["global_step"] == 10
