"""What `test_topologies.py` starts under torchrun: epochs of several configurations, each rank's ledger as JSON."""

import json
import logging
import sys
import warnings
from pathlib import Path

import lightning as L
import torch

from mae_lightning.callbacks import SkippedSamples
from mae_lightning.data import ShardDataModule


class Ledger(L.LightningModule):
    """Writes down which samples it was given, and learns one number from them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append([self.current_epoch, self.global_step, batch["index"].tolist()])
        return ((self.weight - batch["image"].double().mean()) ** 2).sum()

    def validation_step(self, batch, batch_idx):
        self.validated += batch["index"][batch["valid"]].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(shards: str, workers: int, accumulation: int, devices: int, epochs: int, max_bad_samples: int) -> dict:
    data = ShardDataModule(
        shards,
        shards,
        image_size=8,
        global_batch_size=24,
        num_workers=workers,
        max_micro_batch_size=24 // (devices * accumulation),
        max_bad_samples=max_bad_samples,
    )
    model = Ledger()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=devices,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=2,
        callbacks=[SkippedSamples()],
    )
    report: dict = {"rank": trainer.global_rank}
    try:
        trainer.fit(model, data)
    except ValueError as error:
        report["error"] = str(error)
    return report | {"trained": model.trained, "validated": model.validated, "steps": trainer.global_step}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    out, devices, cases = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    reports = [train(**case, devices=devices) for case in cases]
    (out / f"{devices}-{reports[0]['rank']}.json").write_text(json.dumps(reports))
