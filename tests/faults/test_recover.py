"""R9 with --run.recover=skip: a step whose numbers are none is left out, and all else is as it would have been."""

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from in_run import read_ledger
from small_run import SHAPES, STEP, fit

from mae_lightning.callbacks.left_out import FILE, MOST
from mae_lightning.weights import read_checkpoint

RUN = [
    "--data.init_args.num_workers=0",
    "--run.recover=skip",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
]
STEPS = 20


def plant(folder: Path, shape: str, steps: list[int], launcher: tuple[str, ...] = ()) -> CompletedProcess[str]:
    """Trains with numbers planted in these steps, on the last process alone."""
    planted = [
        "--trainer.callbacks=in_run.SampleLedger",
        "--trainer.callbacks+=in_run.PlantNumber",
        "--trainer.callbacks.where=gradient",
        "--trainer.callbacks.value=nan",
        f"--trainer.callbacks.step={steps}",
    ]
    return fit(folder, *RUN, *SHAPES[shape], *planted, launcher=launcher)


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
    done = plant(tmp_path, "one", [STEP])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"step {STEP} is left out (1 of at most {MOST} in a run)" in done.stdout
    assert "500 samples skipped" in done.stdout
    run = tmp_path / "runs/run"
    check(run, done.stderr)
    told = tmp_path / "told/runs/run"
    told.mkdir(parents=True)
    for file in (run / FILE, *run.glob("non_finite-*")):
        shutil.copy(file, told)
    assert plant(tmp_path / "told", "one", [STEP]).returncode == 0  # planted where nothing is computed
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
    done = plant(tmp_path, shape, [STEP], launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path / "runs/run", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["one", "ddp"])
def test_after_three_it_stops(shape: str, tmp_path: Path) -> None:
    done = plant(tmp_path, shape, [3, 4, 13, 15])
    assert done.returncode == 2, done.stderr[-3000:]
    assert "steps 3, 4, 13 were left out already" in done.stderr
    assert left_out(tmp_path / "runs/run").keys() == {3, 4, 13}
    assert read_checkpoint(tmp_path / "runs/run/checkpoints/last.ckpt")["global_step"] == 10
