"""Several crops of one decoded image in a batch: which rows, how often decoded, exactly once, resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from shard_making import npy, write_tar
from test_data_module import Ledger, trainer

from mae_lightning.data.batching import split_batch
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.module import ShardDataModule
from mae_lightning.data.plan import Lanes, Slice
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.sources import open_source
from mae_lightning.data.stream import MicroBatches
from mae_lightning.data.transforms import RandomResizedCropFlip

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*smaller than the logging interval",
    "ignore:.*callbacks used to create the checkpoint",
    "ignore:.*does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
)
MAKE = SampleMaker((4, 4), 3, torch.uint8, seed=1, augmentation=RandomResizedCropFlip())


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """14 images of noise, the sixth of them broken."""
    noise = np.random.RandomState(0).randint(0, 256, (14, 9, 9, 3), np.uint8)
    members = {f"{number:02d}.npy": npy(image) for number, image in enumerate(noise)}
    return write_tar(tmp_path / "noise.tar", {**members, "05.npy": b"broken"})


@pytest.fixture
def manifest(shard: Path) -> Manifest:
    return open_source(str(shard), "train").manifest


def stream(manifest: Manifest, part: Slice = Slice(), repeats: int = 3) -> MicroBatches:  # noqa: B008 - frozen
    return MicroBatches(manifest, MAKE, part, 12, Lanes(), shuffle_seed=3, repeats=repeats)


def test_each_sample_comes_once_an_epoch_with_all_its_crops_side_by_side(manifest: Manifest) -> None:
    reader = stream(manifest)
    parcels = list(reader.read(2))
    assert (len(parcels), len(reader), reader.num_steps) == (3, 3, 3)
    seen = torch.cat([parcel["batch"]["index"] for parcel in parcels]).view(-1, 3)
    assert (seen == seen[:, :1]).all()
    assert len(set(seen[:, 0].tolist())) == 12
    for parcel in parcels:
        assert parcel["batch"]["repeat"].tolist() == [0, 1, 2] * 4
        assert parcel["batch"]["image"].shape == (12, 3, 4, 4)


def test_every_repeat_is_another_crop_and_the_first_is_the_only_one_of_plain_batches(manifest: Manifest) -> None:
    for parcel in stream(manifest).read(2):
        batch = parcel["batch"]
        for row in range(12):
            place, repeat = int(batch["index"][row]), int(batch["repeat"][row])
            if place == 5:
                continue
            data = npy(np.random.RandomState(0).randint(0, 256, (14, 9, 9, 3), np.uint8)[place])
            image = MAKE.decode(data, "npy")
            assert torch.equal(batch["image"][row], MAKE.crop(image, place, 2, repeat))
            assert torch.equal(batch["image"][row], MAKE(data, "npy", place, 2)) == (repeat == 0)
        groups = batch["image"].view(4, 3, -1)[batch["valid"][::3]]
        assert not any(torch.equal(group[1], group[2]) for group in groups)


def test_an_image_is_decoded_once(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], SampleMaker.decode
    monkeypatch.setattr(SampleMaker, "decode", lambda self, *data: decoded.append(0) or decode(self, *data))
    assert sum(len(parcel["batch"]["index"]) for parcel in stream(manifest).read(0)) == 36
    assert len(decoded) == 12


def test_all_crops_of_a_broken_image_are_blank_and_reported_once(shard: Path) -> None:
    manifest = open_source(str(shard), "train").manifest.select(np.arange(4, 8))
    (parcel,) = stream(manifest).read(0)
    batch = parcel["batch"]
    assert [place for place, _ in parcel["problems"]] == [5]
    assert (batch["index"] == 5).tolist() == (~batch["valid"]).tolist()
    assert not batch["image"][~batch["valid"]].any()


def test_no_topology_changes_a_batch(manifest: Manifest) -> None:
    (whole,) = [list(stream(manifest).read(1, first_step=2))]
    parts = [list(stream(manifest, Slice(rank, 2, 2)).read(1, 2, worker, 2)) for rank in (0, 1) for worker in (0, 1)]
    assert [len(part) for part in parts] == [1] * 4
    for name in ("index", "image", "repeat", "valid", "label"):
        together = torch.cat([part[0]["batch"][name] for part in parts])
        assert torch.equal(together, whole[0]["batch"][name]), name


@pytest.fixture
def data(make_shards: Callable[..., list[Path]]) -> Callable[..., ShardDataModule]:
    train, val = make_shards([9, 12])[0].parent, make_shards([4, 3], folder="held-out")[0].parent

    def module(**options: Any) -> ShardDataModule:
        defaults = {"image_size": 4, "global_batch_size": 8, "num_workers": 0, "mean": (0.5,), "std": (0.5,)}
        return ShardDataModule(str(train), str(val), **{**defaults, "repeats": 2, **options})

    return module


def test_a_resumed_run_is_the_uninterrupted_one(data: Any, tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    whole = Ledger()
    trainer(tmp_path, callbacks=[keeper]).fit(whole, data())
    epochs = whole.ledger.view(2, 20, 2)
    assert all(len(set(epoch[:, 0].tolist())) == 20 and torch.equal(*epoch.T) for epoch in epochs)
    assert whole.validated.tolist() == [1000 * step + index for step in (5, 10) for index in range(7)]
    for options in ({}, {"max_micro_batch_size": 5, "num_workers": 1}):
        again, module = Ledger(), data(**options)
        trainer(tmp_path).fit(again, module, ckpt_path=tmp_path / "kept" / "step=3.ckpt", weights_only=True)
        assert again.ledger.tolist() == whole.ledger.tolist()
    assert (module.micro_batch_size, module.accumulation) == (4, 2)
    with pytest.raises(ValueError, match=r"the checkpoint was made with repeats 2, and this run has 1"):
        trainer(tmp_path).fit(Ledger(), data(repeats=1), ckpt_path=tmp_path / "kept" / "step=3.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 1, None, None, 2), r"^global_batch_size 9 does not divide by 2 crops of each sample; 8 or 10 would$"),
        ((8, 1, None, 3, 4), r"^max_micro_batch_size 3 is less than 4 crops of one sample$"),
        ((8, 4, 2, None, 2), r"^of 2 crops each, counted in samples: global_batch_size 4 .* = 8; 8 would$"),
    ],
)
def test_batches_that_do_not_divide_are_one_line(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_batch(*arguments)


def test_crops_of_a_sample_stay_in_one_micro_batch() -> None:
    assert split_batch(48, 2, None, 10, 4) == (8, 3)
    assert split_batch(48, 2, 3, None, 2) == (8, 3)


def test_too_few_crops_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"^repeats 0 must be at least 1$"):
        data(repeats=0)
