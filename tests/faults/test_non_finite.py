"""R9: a number that is none stops all ranks, names the step and its samples, and never reaches a checkpoint."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from mae_lightning.strategies.durable import newest_whole
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
    "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false",
]
ON_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
SHAPES = {
    "one": ["--config=trainer/cpu"],
    "accumulated": ["--config=trainer/cpu", "--data.init_args.max_micro_batch_size=250"],
    "ddp": ["--config=trainer/ddp", *ON_CPU, "--trainer.devices=2"],
    "fsdp": ["--config=trainer/fsdp", *ON_CPU, "--trainer.devices=2"],
}
STEP = 13
"""In the second epoch, so that there is a checkpoint before it."""
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
    done = subprocess.run(
        [sys.executable, "-m", "mae_lightning", "--allow-import", "in_run", "fit", *RUN, *SHAPES[shape], *plant],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
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
