"""Training, validation and the figures of held-out images in every precision that the README names."""

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision

from mae_lightning.data import NoAugmentation, ShardDataModule
from mae_lightning.models import PatchPCA, Pixels, SwinSize, TransformerDecoder, ViTSize
from mae_lightning.tasks import Classification, MAEPretraining, SimMIMPretraining, Task, TokenizerTraining
from mae_lightning.tasks.device_crop import DeviceCropFlip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*does not have many workers",
)
VIT = ViTSize(16, 1, 2, 7)
SWIN = SwinSize(dim=8, depths=(1, 1), num_heads=2, patch_size=2)
RATE = {"base_lr": 1e-6, "warmup_epochs": 0.0}


def mae(**options: Any) -> Any:
    decoder = TransformerDecoder(depth=1, dim=16, num_heads=2)
    return lambda owned: MAEPretraining(VIT, decoder, **options, **RATE, **owned)


def classifier(owned: dict[str, Any]) -> Classification:
    return Classification(VIT, num_classes=10, mixup=0.8, head_std=0.02, **RATE, **owned)


def tokenizer(owned: dict[str, Any]) -> TokenizerTraining:
    owned = {name: value for name, value in owned.items() if name != "seed"}
    return TokenizerTraining(4, 16, 8, **RATE, **owned)


TASKS = {
    "normalised pixels": mae(),
    "pixels": mae(target=Pixels()),
    "principal components": mae(target=PatchPCA(num_images=64)),
    "cropped on the device": mae(device_augmentation=DeviceCropFlip()),
    "SimMIM": lambda owned: SimMIMPretraining(SWIN, **RATE, **owned),
    "classification": classifier,
    "tokenizer": tokenizer,
}


class Figures(Callback):
    """Keeps the gradient's norm of the last step."""

    norm = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Task)
        self.norm = float(pl_module.gradient_norm)


def trained(task: Task, data: ShardDataModule, **options: Any) -> tuple[dict[str, float], float]:
    """Held-out figures after two clipped steps of next to no length, and the norm of the second's gradient."""
    kept = Figures()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=4,
        num_sanity_val_steps=0,
        gradient_clip_val=5.0,
        logger=False,
        callbacks=[kept],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(task, data)
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if name.startswith("val/")}, kept.norm


def fp16() -> dict[str, Any]:
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))]}


@pytest.mark.parametrize("name", TASKS)
def test_all_precisions_give_the_figures_of_fp32(name: str) -> None:
    augmentation = NoAugmentation() if name == "cropped on the device" else None
    data = ShardDataModule(
        "fashion_mnist", image_size=28, global_batch_size=64, num_workers=0, augmentation=augmentation
    )
    owned = {name: getattr(data, name) for name in ("image_size", "num_channels", "mean", "std", "seed")}
    torch.manual_seed(0)
    task = TASKS[name]({**owned, "global_batch_size": 64})
    expected, norm = trained(copy.deepcopy(task), data)
    assert "val/loss" in expected
    for options in ({"precision": "bf16-mixed"}, {"precision": "bf16-true"}, fp16()):
        figures, own_norm = trained(copy.deepcopy(task), data, **options)
        assert figures.keys() == expected.keys()
        for figure, value in figures.items():
            assert value == pytest.approx(expected[figure], rel=0.02, abs=0.02), (options, figure)
        assert own_norm == pytest.approx(norm, rel=0.1), options
