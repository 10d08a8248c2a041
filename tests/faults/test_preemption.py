"""R3: told to go, a run saves once and says that it wants to go on, whoever gets the signal and when."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from mae_lightning.callbacks.preemption import MARKER, REQUEUE_CODE
from mae_lightning.strategies.durable import newest_whole
from mae_lightning.weights import read_checkpoint

ROOT = Path(__file__).parents[2]
RUN = [
    "--config=quickstart/pretrain",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.warmup_epochs=0",
    "--data.init_args.global_batch_size=100",
    "--data.init_args.num_workers=0",
    "--run.name=run",
    "--run.wandb=off",
    "--trainer.max_epochs=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.enable_progress_bar=false",
]
STEPS = 100
"""Of 5,000 images in two epochs, global batches of 100."""
PYTHON = [sys.executable, "-m"]
TORCHRUN = [*PYTHON, "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
ON_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
SHAPES = {
    "one": (PYTHON, ["--config=trainer/cpu"]),
    "ddp": (PYTHON, ["--config=trainer/ddp", *ON_CPU, "--trainer.devices=2"]),
    "ddp, workers": (
        PYTHON,
        ["--config=trainer/ddp", *ON_CPU, "--trainer.devices=2", "--data.init_args.num_workers=2"],
    ),
    "fsdp": (PYTHON, ["--config=trainer/fsdp", *ON_CPU, "--trainer.devices=2"]),
    "torchrun": (TORCHRUN, ["--config=trainer/ddp", *ON_CPU]),
    "torchrun, workers": (TORCHRUN, ["--config=trainer/ddp", *ON_CPU, "--data.init_args.num_workers=2"]),
}
ORDINARY = [
    ("one", "SIGUSR1", "first", "validation", 1),
    ("ddp", "SIGTERM", "last", "step", 2),
    ("ddp, workers", "SIGTERM", "group", "step", 1),
]
OTHERS = [
    ("torchrun", "SIGTERM", "launcher", "step", 1),
    ("torchrun, workers", "SIGTERM", "launcher", "step", 1),
    ("ddp, workers", "SIGUSR1", "group", "step", 1),
    *(("one", name, "first", moment, 1) for name, moment in product(("SIGTERM", "SIGUSR1"), ("start", "save"))),
    *(("ddp", "SIGTERM", "all", moment, 2) for moment in ("start", "step", "save", "validation")),
    *(("ddp", "SIGUSR1", target, "validation", 1) for target in ("first", "last")),
    *(("fsdp", "SIGUSR1", target, moment, 1) for target, moment in (("last", "step"), ("all", "save"))),
    *(("fsdp", "SIGTERM", target, "validation", 1) for target in ("first", "all")),
    *(("torchrun", "SIGTERM", "launcher", moment, 1) for moment in ("save", "validation")),
    ("torchrun", "SIGUSR1", "last", "step", 2),
]
assert len(ORDINARY) + len(OTHERS) == 23


@pytest.mark.parametrize(
    ("shape", "signal", "target", "moment", "times"),
    [*ORDINARY, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)],
)
def test_a_run_that_is_told_to_go(
    shape: str, signal: str, target: str, moment: str, times: int, tmp_path: Path
) -> None:
    launcher, options = SHAPES[shape]
    stop = [
        "--trainer.callbacks=in_run.StopAt",
        f"--trainer.callbacks.moment={moment}",
        f"--trainer.callbacks.signal={signal}",
        f"--trainer.callbacks.target={target}",
        f"--trainer.callbacks.times={times}",
    ]
    done = subprocess.run(
        [*launcher, "mae_lightning", "--allow-import", "in_run", "fit", *RUN, *options, *stop],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,  # no hang
        check=False,
        start_new_session=True,
    )
    run = tmp_path / "runs/run"
    assert (run / MARKER).is_file(), done.stderr[-3000:]
    assert done.returncode == REQUEUE_CODE if launcher is not TORCHRUN else done.returncode != 0
    assert "Traceback" not in (done.stderr if launcher is not TORCHRUN else "")
    checkpoint = newest_whole(run / "checkpoints/last.ckpt")
    assert checkpoint is not None
    assert checkpoint.name == "last.ckpt"
    steps = read_checkpoint(checkpoint)["global_step"]
    assert f"after {steps} steps" in (run / MARKER).read_text()
    assert 0 < steps < STEPS
    if moment == "validation":
        assert steps == STEPS / 2
