"""The first 200 steps of the quickstart, as numbers.

After a change that is meant to change them, ``python tests/golden/golden_curve.py`` writes them anew; the commit says
why, and shows a whole run before and after.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("quickstart_pretrain.json")
STEPS = 200
COLUMNS = ("train/loss", "train/gradient_norm", "train/lr")
REQUEUE = 75
"""How a run ends that was told to go."""

Curve = dict[str, list[float]]


def this_platform() -> dict[str, str]:
    """What decides the last bits of a sum."""
    processor = next(
        (line.split(":")[1].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")), ""
    )
    capability = torch.backends.cpu.get_cpu_capability()
    return {"machine": platform.machine(), "processor": processor, "kernels": capability, "torch": torch.__version__}


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def train(folder: Path, **environment: str) -> Curve:
    """Runs the recipe as it stands, on the CPU in one thread, and stops it after these steps."""
    stop = f"{{class_path: in_run.StopAt, init_args: {{after: {STEPS + 1}, target: all}}}}"
    words = ["--allow-import", "in_run", "fit", "--config=quickstart/pretrain", f"--run.dir={folder}", "--run.name=run"]
    words += ["--run.wandb=off", "--data.init_args.val=null", f"--trainer.callbacks+={stop}"]
    words += ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.log_every_n_steps=1"]
    done = subprocess.run(
        [sys.executable, "-m", "mae_lightning", *words, "--trainer.enable_progress_bar=false"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == REQUEUE, done.stderr[-3000:]
    with (folder / "run/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]][:STEPS]
    return {name: [float(row[name]) for row in rows] for name in COLUMNS}


def largest_difference(curve: Curve, other: Curve, column: str) -> float:
    """Of a step's figure, as a part of it."""
    pairs = zip(curve[column], other[column], strict=True)
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        curve = train(Path(folder))
    FILE.write_text(json.dumps({"platform": this_platform(), "curve": curve}, indent=1) + "\n")


if __name__ == "__main__":
    main()
