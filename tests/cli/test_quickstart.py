"""The quickstart learns: its bounds hold, whatever the machine."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quickstart_keeps_its_promise(program: Callable, here: Path) -> None:
    outcome = program("fit", "--config=quickstart/pretrain", "--run.wandb=off", "--trainer.enable_progress_bar=false")
    assert outcome.code == 0, outcome.err
    with Path("runs/quickstart-pretrain/metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["val/loss"]][-1]
    figures = {name.removeprefix("val/"): float(value) for name, value in last.items() if name.startswith("val/")}
    assert figures["loss"] <= 0.8 * min(figures["loss_zero"], figures["loss_visible_mean"])
    assert figures["knn"] >= figures["knn_untrained"] + 0.10
    assert "knn_raw_pixels" in figures
