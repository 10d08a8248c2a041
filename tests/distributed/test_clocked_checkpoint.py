"""Two processes save by the first one's clock, and ask it only when it is time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("save_by_the_clock.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("seconds", "options", "saved", "asked"),
    [
        ("0", (), list(range(2, 11)), 9),
        pytest.param("0", ("--trainer.accumulate_grad_batches=2",), list(range(2, 11)), 9, marks=pytest.mark.slow),
        ("3600", (), [], 0),
    ],
)
def test_saving_by_the_clock(
    seconds: str, options: tuple[str, ...], saved: list[int], asked: int, tmp_path: Path
) -> None:
    """Ten steps: what a vote says is known a step later, so that the first one saves nothing."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(SCRIPT), seconds, *options),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1] == {"saved": saved, "asked": [asked]}
    assert (tmp_path / "runs/run/checkpoints/last.ckpt").is_file()
