"""Validation over two processes counts each sample once, padding left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mae_lightning

SCRIPT = Path(__file__).with_name("validate_classification.py")


def validated(num_processes, folder):
    out = folder / f"{num_processes}.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(mae_lightning.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, SCRIPT, str(num_processes), out],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(out.read_text())


def test_two_processes_give_the_figures_of_one(tmp_path):
    one, two = (validated(number, tmp_path) for number in (1, 2))
    assert sum(map(sum, one["confusion"])) == 97  # 97 = 3 x 32 + 1: both runs pad
    assert two["confusion"] == one["confusion"]
    for name in ("val/accuracy", "val/top5"):
        assert two["figures"][name] == one["figures"][name]
    hits = sum(one["confusion"][label][label] for label in range(10))
    assert one["figures"]["val/accuracy"] == pytest.approx(hits / 97, abs=1e-7)
    # batches of another size round the logits of another way, so the loss is equal to rounding
    assert two["figures"]["val/loss"] == pytest.approx(one["figures"]["val/loss"], rel=1e-6)
