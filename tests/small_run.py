"""A training of seconds, run as a process of its own with the callbacks of `in_run`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config=quickstart/pretrain",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.warmup_epochs=0",
    "--data.init_args.global_batch_size=500",
    "--data.init_args.val=null",
    "--run.name=run",
    "--run.wandb=off",
    "--trainer.enable_progress_bar=false",
]
"""Ten steps an epoch, of the 5,000 images that the package ships, in the folder runs/run."""
ON_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
DDP = ["--config=trainer/ddp", *ON_CPU, "--trainer.devices=2"]
SHAPES = {
    "one": ["--config=trainer/cpu"],
    "accumulated": ["--config=trainer/cpu", "--data.init_args.max_micro_batch_size=250"],
    "ddp": DDP,
    "fsdp": ["--config=trainer/fsdp", *ON_CPU, "--trainer.devices=2"],
}
STEP = 13
"""In the second epoch, so that there is a checkpoint before it."""


def fit(
    folder: Path, *options: str, launcher: tuple[str, ...] = (), timeout: float = 240, command: str = "fit"
) -> subprocess.CompletedProcess[str]:
    """Trains until it ends.

    Args:
        folder: Where it runs.
        options: Beside `SMALL`.
        launcher: Words of ``python -m`` that start it.
        timeout: Seconds.
        command: ``validate`` and ``test`` judge what was trained.
    """
    return subprocess.run(
        [sys.executable, "-m", *launcher, "mae_lightning", "--allow-import=in_run", command, *SMALL, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
