"""Training images whose size follows the epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from test_data_module import Ledger, trainer

from mae_lightning.data.batch import Batch
from mae_lightning.data.module import ShardDataModule
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.transforms import RandomResizedCropFlip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*smaller than the logging interval",
    "ignore:.*callbacks used to create the checkpoint",
    "ignore:.*does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
)
SIZES = {1: 6, 2: (4, 8)}


class Measuring(Ledger):
    """Notes the height and width of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.zeros(0, 2, dtype=torch.int64))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.sizes = torch.empty_like(checkpoint["state_dict"]["sizes"])

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.sizes = torch.cat([self.sizes, torch.tensor([batch["image"].shape[2:]])])
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert batch["image"].shape[2:] == (5, 5)
        super().validation_step(batch, batch_idx)


@pytest.fixture
def data(make_shards: Callable[..., list[Path]]) -> Callable[..., ShardDataModule]:
    train, val = make_shards([10, 7])[0].parent, make_shards([3], folder="held-out")[0].parent

    def module(**options: Any) -> ShardDataModule:
        defaults = {"image_size": 5, "global_batch_size": 8, "num_workers": 0, "mean": (0.5,), "std": (0.5,)}
        return ShardDataModule(str(train), str(val), **{**defaults, "image_size_by_epoch": SIZES, **options})

    return module


@pytest.mark.parametrize(("step", "workers"), [(3, 0), (4, 0), (5, 1)])
def test_sizes_follow_the_epoch_and_a_resumed_run_is_the_uninterrupted_one(
    data: Any, tmp_path: Path, step: int, workers: int
) -> None:
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Measuring()
    trainer(tmp_path, 4, callbacks=[keeper]).fit(whole, data(num_workers=workers))
    assert whole.sizes.tolist() == [[5, 5]] * 2 + [[6, 6]] * 2 + [[4, 8]] * 4
    again = Measuring()
    trainer(tmp_path, 4).fit(again, data(), ckpt_path=tmp_path / "kept" / f"step={step}.ckpt", weights_only=True)
    assert again.sizes.tolist() == whole.sizes.tolist()
    assert again.ledger.tolist() == whole.ledger.tolist()
    assert torch.equal(again.weight, whole.weight)


def test_the_size_of_every_epoch() -> None:
    make = SampleMaker((5, 5), 3, torch.uint8, seed=0, size_by_epoch={2: (6, 6), 4: (4, 4)})
    assert [make.at(epoch).image_size[0] for epoch in range(6)] == [5, 5, 6, 6, 4, 4]
    assert make.at(3).blank(2).shape == (2, 3, 6, 6)


def test_the_box_of_a_crop_does_not_depend_on_the_size() -> None:
    boxes: list[tuple[int, int, int, int]] = []

    class Noting(RandomResizedCropFlip):
        def draw_box(self, *arguments: Any) -> tuple[int, int, int, int]:
            boxes.append(super().draw_box(*arguments))
            return boxes[-1]

    image = torch.randint(256, (1, 20, 30), dtype=torch.uint8)
    for size_by_epoch in ({}, {1: (8, 8)}):
        make = SampleMaker((4, 4), 1, torch.uint8, 0, Noting(), size_by_epoch=size_by_epoch)
        make.at(1).crop(image, 7, 1)
    assert boxes[0] == boxes[1]


def test_an_epoch_below_zero_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"^image_size_by_epoch \{-1: 4\} has an epoch below 0, where they begin$"):
        data(image_size_by_epoch={-1: 4})
