"""Masked pretraining whose images change their size: resumed in mid-schedule, refused where the model cannot follow."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from mae_lightning.data import NoAugmentation, ShardDataModule
from mae_lightning.models import TransformerDecoder, ViTSize
from mae_lightning.tasks import Classification, DeviceCropFlip, MAEPretraining

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*smaller than the logging interval",
    "ignore:.*callbacks used to create the checkpoint",
    "ignore:.*does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
)
MOMENTS = {"mean": (0.5,), "std": (0.3,)}


def trainer(folder: Path, epochs: int = 3, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checkpoints = {"enable_checkpointing": "callbacks" in options}
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, **{**quiet, **checkpoints, **options}
    )


@pytest.fixture
def data(tmp_path: Path) -> Any:
    (tmp_path / "images").mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (13, 20, 20), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:02d}.png")

    def module(**options: Any) -> ShardDataModule:
        defaults = {"image_size": 16, "image_size_by_epoch": {1: 12, 2: (16, 20)}, "repeats": 2}
        small = {"global_batch_size": 8, "num_workers": 0}
        return ShardDataModule(str(tmp_path / "images"), **{**defaults, **small, **MOMENTS, **options})

    return module


def task(**changes: Any) -> MAEPretraining:
    torch.manual_seed(0)
    return MAEPretraining(
        ViTSize(8, 1, 2, 4),
        TransformerDecoder(depth=1, dim=8, num_heads=2),
        image_size=(16, 16),
        num_channels=1,
        global_batch_size=8,
        warmup_epochs=1.0,
        **({"base_lr": 1e-2} | changes),
        **MOMENTS,
    )


def test_a_resumed_run_is_the_uninterrupted_one(data: Any, tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = task()
    trainer(tmp_path, callbacks=[keeper]).fit(whole, data())
    for step in (3, 5):  # at an epoch's end, in the middle of the next
        again = task()
        trainer(tmp_path).fit(again, data(), ckpt_path=tmp_path / "kept" / f"step={step}.ckpt", weights_only=True)
        for name, value in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    plain = task()
    trainer(tmp_path).fit(plain, data(image_size_by_epoch=None))
    losses = [float(one.step_loss) for one in (whole, again, plain)]
    assert losses[0] == losses[1] != losses[2]


def test_a_classifier_is_refused_before_training(data: Any, tmp_path: Path) -> None:
    one = Classification(ViTSize(8, 1, 2, 4), image_size=(16, 16), num_channels=1, num_classes=2, **MOMENTS)
    with pytest.raises(ValueError, match=r"^data.image_size_by_epoch: Classification trains on images of one size"):
        trainer(tmp_path).fit(one, data())


def test_what_the_device_would_undo_is_refused_before_training(data: Any, tmp_path: Path) -> None:
    one = task(device_augmentation=DeviceCropFlip())
    with pytest.raises(ValueError, match=r"^data.augmentation RandomResizedCropFlip and .* would both crop: set"):
        trainer(tmp_path).fit(one, data(image_size_by_epoch=None))
    whole = NoAugmentation()
    with pytest.raises(ValueError, match=r"has images of 12 x 12, which model.device_augmentation would enlarge to"):
        trainer(tmp_path).fit(one, data(augmentation=whole))
    larger = data(augmentation=whole, image_size_by_epoch={0: 20, 1: 24})
    trainer(tmp_path, epochs=2, limit_train_batches=1).fit(one, larger)
