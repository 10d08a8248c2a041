"""The README's lines for several nodes, run as they stand there: two processes for its sixty-four, on small images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from readme_commands import ROOT, lines

TWO_RANKS = {"--nnodes=8": "--nnodes=1", "--nproc-per-node=8": "--nproc-per-node=2", "HOST:29500": "127.0.0.1:29541"}
SMALL = [
    "--data.init_args.train=fashion_mnist:train",
    "--data.init_args.val=null",
    "--data.init_args.image_size=28",
    "--data.init_args.global_batch_size=32",
    "--data.init_args.num_workers=0",
    "--model.init_args.encoder=nano/4",
    "--model.init_args.warmup_epochs=0",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.max_steps=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--run.wandb=off",
]
SRUN = """\
#!/usr/bin/env bash
# Starts two tasks on this machine, as srun would.
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 SLURM_NNODES=1 SLURM_NODEID=0
export SLURM_JOB_NAME=mae SLURM_NODELIST=127.0.0.1 MASTER_PORT=29542
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & peer=$!
SLURM_PROCID=0 SLURM_LOCALID=0 "$@"
wait "$peer"
"""
SBATCH = """\
#!/usr/bin/env bash
# Runs the script here and now; what stands before it are the job's options.
while [[ $1 == --* ]]; do shift; done
export SLURM_JOB_ID=7
exec bash "$@"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The programs of a cluster, and this package."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"srun": SRUN, "sbatch": SBATCH}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "name"), [("torchrun --nnodes=8", "imagenet-pretrain_large"), ("NAME=vit-large", "vit-large")]
)
def test_the_line_starts_a_run(start: str, name: str, environment: dict[str, str], tmp_path: Path) -> None:
    (line,) = [line for line in lines() if line.startswith(start)]
    for shown, small in TWO_RANKS.items():
        line = line.replace(shown, small)
    (tmp_path / "docker").symlink_to(ROOT / "docker")
    script = f"{line} {' '.join(SMALL)}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "x 2 devices" in done.stdout, done.stdout
    assert (tmp_path / f"runs/{name}/checkpoints/last.ckpt").is_file()
