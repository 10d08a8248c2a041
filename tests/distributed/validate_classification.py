"""Validates a fixed classifier on 97 held-out images over some processes; the first one writes the figures as JSON."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, Trainer

from mae_lightning.data import ShardDataModule
from mae_lightning.tasks import Classification


class Confusion(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        self.counts = pl_module.metrics.confusion.compute().tolist()


def main(num_processes: int, out: Path) -> None:
    data = ShardDataModule("fashion_mnist", image_size=28, global_batch_size=32, num_workers=0)
    source = data.sources["val"]
    rows = np.sort(np.random.RandomState(0).permutation(len(source.manifest))[:97])
    data.sources["val"] = replace(source, manifest=source.manifest.select(rows))
    torch.manual_seed(0)
    task = Classification(
        "nano/4",
        head_std=1.0,
        confusion_matrix=True,
        image_size=data.image_size,
        num_channels=1,
        mean=data.mean,
        std=data.std,
        num_classes=data.num_classes,
    )
    confusion = Confusion()
    trainer = Trainer(
        accelerator="cpu",
        devices=num_processes,
        strategy="ddp" if num_processes > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[confusion],
    )
    (figures,) = trainer.validate(task, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        out.write_text(json.dumps({"figures": figures, "confusion": confusion.counts}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
