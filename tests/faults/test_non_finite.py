"""R9: a number that is none stops all ranks, names the step and its samples, and never reaches a checkpoint."""

from itertools import product
from pathlib import Path

import pytest
import torch
from small_run import SHAPES, STEP, fit

from mae_lightning.strategies.durable import newest_whole
from mae_lightning.weights import read_checkpoint

RUN = ["--data.init_args.num_workers=0", "--trainer.max_epochs=2"]
CASES = [("ddp", "gradient", "nan"), ("accumulated", "input", "inf")]
OTHERS = [
    case
    for case in product(SHAPES, ("loss", "gradient", "input"), ("nan", "inf"))
    if case not in CASES and (case[0] != "accumulated" or case[1] == "loss")
]


@pytest.mark.parametrize(
    ("shape", "where", "value"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
)
def test_a_run_stops(shape: str, where: str, value: str, tmp_path: Path) -> None:
    plant = [
        "--trainer.callbacks=in_run.PlantNumber",
        f"--trainer.callbacks.where={where}",
        f"--trainer.callbacks.value={value}",
        f"--trainer.callbacks.step={STEP}",
    ]
    done = fit(tmp_path, *RUN, *SHAPES[shape], *plant, timeout=180)
    assert done.returncode == 2, done.stderr[-3000:]
    assert f"step {STEP} gave loss" in done.stderr
    assert "learning rate" in done.stderr
    run = tmp_path / "runs/run"
    listed = sorted(run.glob(f"non_finite-step-{STEP}-rank-*.txt"))
    ranks = 2 if shape in ("ddp", "fsdp") else 1
    assert len(listed) == ranks
    keys = [key for file in listed for key in file.read_text().split()]
    assert len(set(keys)) == len(keys) == 500
    checkpoint = newest_whole(run / "checkpoints/last.ckpt")
    assert checkpoint is not None
    content = read_checkpoint(checkpoint)
    assert content["global_step"] == 10
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values() if torch.is_tensor(tensor))
