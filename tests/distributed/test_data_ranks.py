"""The data module in two processes over gloo: the same run as in one, and resumable across the two."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mae_lightning

SCRIPT = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from mae_lightning.data.module import ShardDataModule

class Ledger(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append([self.current_epoch, self.global_step, self.global_rank, batch_idx, batch["index"].tolist(),
                          batch["image"].sum((1, 2, 3)).tolist()])
        return ((self.weight - batch["image"].double().mean()) ** 2).sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append([self.global_step, batch["index"][batch["valid"]].tolist()])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

folder, name, devices, workers, micro, checkpoint = sys.argv[1:]
data = ShardDataModule("fashion_mnist:val", "fashion_mnist:val", image_size=28, global_batch_size=96,
                       num_workers=int(workers), max_micro_batch_size=int(micro))
model = Ledger()
keeper = ModelCheckpoint(Path(folder, name + "-kept"), filename="{step}", every_n_train_steps=7, save_top_k=-1)
trainer = L.Trainer(max_epochs=2, devices=int(devices), accelerator="cpu",
                    strategy="ddp" if int(devices) > 1 else "auto", logger=False,
                    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
                    callbacks=[keeper])
trainer.fit(model, data, ckpt_path=checkpoint or None, weights_only=True)
report = {"seen": model.seen, "validated": model.validated, "weight": model.weight.item(), "step": trainer.global_step}
Path(folder, f"{name}-{trainer.global_rank}.json").write_text(json.dumps(report))
"""

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(mae_lightning.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
Run = tuple[dict[tuple[int, int], list[int]], dict[int, int], list[int], list[float]]


def run(folder: Path, name: str, devices: int, workers: int = 0, micro: int = 96, checkpoint: str = "") -> Run:
    """Global batches by (epoch, step), pixel sums by sample, validated samples, weights; over all ranks."""
    (folder / "train.py").write_text(SCRIPT)
    arguments = [str(folder), name, str(devices), str(workers), str(micro), checkpoint]
    subprocess.run(
        [sys.executable, str(folder / "train.py"), *arguments],
        check=True,
        timeout=300,
        capture_output=True,
        env=ENVIRONMENT,
    )
    reports: list[dict[str, Any]] = [
        json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(devices)
    ]
    steps: dict[tuple[int, int], list[int]] = {}
    for report in reports:  # a rank's micro-batches are its contiguous part of the global batch
        for epoch, step, _, _, index, _ in report["seen"]:
            steps.setdefault((epoch, step), []).extend(index)
    pixels = {
        (row[0], index): total
        for report in reports
        for row in report["seen"]
        for index, total in zip(row[4], row[5], strict=True)
    }
    validated = sorted(
        index for report in reports for step, rows in report["validated"] if step == 20 for index in rows
    )
    assert {report["step"] for report in reports} == {20}
    assert len({len(report["seen"]) for report in reports}) == 1
    return steps, pixels, validated, [report["weight"] for report in reports]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Run]]:
    """Uninterrupted runs on one rank and, with workers and accumulation, on two."""
    folder = tmp_path_factory.mktemp("whole")
    return {1: (folder, run(folder, "1", 1)), 2: (folder, run(folder, "2", 2, workers=1, micro=24))}


def test_two_ranks_train_the_same_global_batches(whole: dict[int, tuple[Path, Run]]) -> None:
    (steps, pixels, validated, weights), two = whole[1][1], whole[2][1]
    assert len(steps) == 20
    assert two[0] == steps
    assert two[1] == pixels
    assert two[2] == validated == list(range(1000))
    assert two[3] == pytest.approx(weights * 2, rel=1e-12)


@pytest.mark.parametrize(("begun", "resumed", "step"), [(1, 2, 7), (2, 1, 14)])
def test_a_run_goes_on_with_another_number_of_ranks(
    whole: dict[int, tuple[Path, Run]], tmp_path: Path, begun: int, resumed: int, step: int
) -> None:
    folder, (steps, _, validated, weights) = whole[begun]
    again = run(tmp_path, "again", resumed, 1, 24, str(folder / f"{begun}-kept" / f"step={step}.ckpt"))
    assert again[0] == {place: rows for place, rows in steps.items() if place[1] >= step}
    assert again[2] == validated
    assert again[3] == pytest.approx(weights[:1] * resumed, rel=1e-12)
