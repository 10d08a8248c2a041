"""The data set as Lightning trains on it. Only this file of the package knows Lightning."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any, Literal

import lightning as L
from lightning.fabric.utilities import suggested_max_num_workers
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from mae_lightning.data.batch import Batch
from mae_lightning.data.batching import split_batch
from mae_lightning.data.decode import Decoder
from mae_lightning.data.loader import BadSamples, Loader
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.picking import pick
from mae_lightning.data.plan import Lanes, Slice
from mae_lightning.data.reading import lanes_for
from mae_lightning.data.resume import Position, align_loops, check_same_data
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.sources import Source
from mae_lightning.data.splits import Split, open_splits
from mae_lightning.data.statistics import channel_statistics, channels_and_type, some_rows
from mae_lightning.data.stream import MicroBatches
from mae_lightning.data.subsets import of_classes, part_of
from mae_lightning.data.transforms import Augmentation, EvaluationCrop, RandomResizedCropFlip
from mae_lightning.data.urls import Patience

__all__ = ["ShardDataModule", "Split", "data_of", "workers_for"]

MAX_AUTO_WORKERS = 16


class ShardDataModule(L.LightningDataModule):
    """Batches of shards, folders or images: each sample at most once an epoch, in an order that no topology changes.

    Data is named by one grammar (see `open_source`): a name of the catalogue, a manifest, shards, a folder, an image.

    Example::

        from mae_lightning.data import ShardDataModule

        data = ShardDataModule("fashion_mnist:train", image_size=28, global_batch_size=64, num_workers=0)
        data.setup("fit")
        for epoch in range(2):
            batch = next(iter(data.train_dataloader()))  # image in bytes, label, index, valid

    Args:
        train: Training data.
        val: Held-out data; None takes the validation split of `train` where that names a data set with one.
        classes: Only these classes, numbered anew in this order: ``0-5`` or ``0,3,7-9``; None for all.
        hold_out: Share of each training class that is held out, drawn with the seed, to choose settings by: validation
            then is on it, and `test` on `val`.
        label_fraction: Share of each class that is trained on, drawn with the seed from what is not held out.
        labels_per_class: The same as a number of samples.
        predict: Data to predict on; None takes the held-out data.
        image_size: Height and width of the model's images; one number for squares.
        image_size_by_epoch: Another size of training images from each of these epochs on, counted from 0; the model is
            built for `image_size` and judged at it.
        repeats: Crops of each training image, decoded once, side by side in one batch (Hoffer et al. 2020, arXiv
            1901.09335): a batch has so many times fewer images, and an epoch, still every image once, as many more
            steps.
        global_batch_size: Images of one optimiser step, over all devices and micro-batches; crops, if repeated.
        max_micro_batch_size: Most images a device holds at once; accumulation follows from it.
        augmentation: Of training images; None is `RandomResizedCropFlip()`.
        evaluation: The crop of all other images; None is `EvaluationCrop()`.
        decoder: "fast", or "reference" for Pillow and torchvision's first transforms bit by bit.
        num_channels: 1 or 3 brings images to that; None takes what the data has.
        mean: A channel's mean of pixels in 0..1; None takes the catalogue's or manifest's, or measures some images.
        std: Likewise the standard deviation.
        num_workers: Processes that read on each device; "auto" shares the machine's cores.
        seed: Of the order, the augmentation and the masks.
        max_bad_samples: Samples that may be skipped, each named in the log, counted over all devices at the end of each
            pass over data; more stop the run.
        patience: Time limit and number of tries of remote reads; None is `Patience()`.
        lanes: How the training order is cut for streaming; None suits the data.

    Attributes:
        image_size: Height and width.
        num_channels: Of the images in a batch.
        mean: A value per channel.
        std: A value per channel.
        class_names: Names of the labels, or None.
        num_classes: Number of labels, or None where there are none.
        micro_batch_size: Images of one device's batch, once the trainer is known.
        accumulation: Micro-batches of one optimiser step, once the trainer is known.
        bad_samples: What was skipped so far on this process.
        waiting: Makes the context in which this process waits for each batch; nothing by default.

    Raises:
        ValueError: The data or an argument is unfit; one line says what and what would be right.
        FileNotFoundError: A file is not there.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        predict: str | None = None,
        *,
        classes: str | None = None,
        hold_out: float = 0.0,
        label_fraction: float = 1.0,
        labels_per_class: int | None = None,
        image_size: int | tuple[int, int] = 224,
        image_size_by_epoch: dict[int, int | tuple[int, int]] | None = None,
        repeats: int = 1,
        global_batch_size: int = 256,
        max_micro_batch_size: int | None = None,
        augmentation: Augmentation | None = None,
        evaluation: EvaluationCrop | None = None,
        decoder: Decoder = "fast",
        num_channels: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        num_workers: int | Literal["auto"] = "auto",
        seed: int = 0,
        max_bad_samples: int = 0,
        patience: Patience | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        super().__init__()
        self.image_size = _pair(image_size)
        self.image_size_by_epoch = {epoch: _pair(size) for epoch, size in (image_size_by_epoch or {}).items()}
        if min(self.image_size_by_epoch, default=0) < 0:
            raise ValueError(f"image_size_by_epoch {image_size_by_epoch} has an epoch below 0, where they begin")
        if min(min(size) for size in (self.image_size, *self.image_size_by_epoch.values())) < 1:
            raise ValueError(f"image_size {image_size} and those by epoch must be at least 1 pixel")
        if repeats < 1:
            raise ValueError(f"repeats {repeats} must be at least 1")
        self.repeats = repeats
        self.global_batch_size = global_batch_size
        self.max_micro_batch_size = max_micro_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.lanes = lanes
        self.patience = patience or Patience()
        self.bad_samples = BadSamples(max_bad_samples)
        self.augmentation = augmentation or RandomResizedCropFlip()
        self.sources = open_splits(train, val, predict)
        if classes is not None:
            self.sources = of_classes(self.sources, classes)
        main = next(iter(self.sources.values()))
        if "train" in self.sources:
            self.sources["train"], held_out = part_of(main, hold_out, label_fraction, labels_per_class, seed)
            if held_out is not None and "val" in self.sources:
                self.sources["test"] = self.sources["val"]
            self.sources |= {} if held_out is None else {"val": held_out}
        self.class_names = main.class_names
        self.num_classes = main.num_classes

        skip_bad = max_bad_samples > 0
        found_channels, dtype = channels_and_type(main.manifest, skip_bad, self.patience)
        self.num_channels = num_channels or main.num_channels or found_channels
        evaluation = evaluation or EvaluationCrop()
        self.evaluate = SampleMaker(
            self.image_size, self.num_channels, dtype, seed, evaluation=evaluation, decoder=decoder
        )
        self.mean, self.std = channel_statistics(
            main, self.evaluate, mean, std, skip_bad=skip_bad, patience=self.patience
        )

        self.micro_batch_size = global_batch_size
        self.accumulation = 1
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        self._resumed, self._passes = Position(), 0
        self._loaders: list[Loader] = []

    # ---------------------------------------------------------------- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Divide the global batch by the devices that are there, and tell the trainer what to accumulate.

        Without a trainer the batch is this process's, and each pass over the training loader is the next epoch.

        Raises:
            ValueError: The division is not whole; names the numbers and the nearest that work.
        """
        trainer = self.trainer
        asked = trainer.accumulate_grad_batches if trainer is not None else 1
        self.micro_batch_size, self.accumulation = split_batch(
            self.global_batch_size,
            self._world()[1],
            asked if asked > 1 else None,
            self.max_micro_batch_size,
            self.repeats,
        )
        if trainer is None:
            return
        trainer.accumulate_grad_batches = self.accumulation
        if stage == TrainerFn.FITTING and "val" not in self.sources:
            trainer.limit_val_batches = 0  # Lightning would warn of an empty loader

    def teardown(self, stage: str) -> None:
        self._resumed = Position()
        while self._loaders:
            self._loaders.pop().close()

    def train_dataloader(self) -> Loader:
        source = self._source("train")
        rank, world_size = self._world()
        stream = MicroBatches(
            source.manifest,
            replace(self.evaluate, augmentation=self.augmentation, size_by_epoch=self.image_size_by_epoch),
            Slice(rank, world_size, self.accumulation),
            self.global_batch_size,
            self._training_lanes(),
            shuffle_seed=self.seed,
            patience=self.patience,
            repeats=self.repeats,
        )
        if stream.num_steps == 0:
            stream.order(0)  # says which batch would fit
        return self._loader(stream, "train", self._position)

    def val_dataloader(self) -> Loader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        return self._evaluation_loader("test" if "test" in self.sources else "val")

    def predict_dataloader(self) -> Loader:
        return self._evaluation_loader("predict" if "predict" in self.sources else "val")

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, on what data, in which order: the same on every rank, and nothing of the topology."""
        if self.trainer is None or "train" not in self.sources:
            return {}
        return {
            "position": asdict(self._stands()),
            "recipe": self._recipe(),
            "data": self._source("train").manifest.digest,
            "parts": self._source("train").manifest.parts,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint stood, and bring Lightning's counters there.

        Raises:
            ValueError: It was made on other data, or with another order.
        """
        trainer = self._trainer
        if trainer.state.fn != TrainerFn.FITTING or "train" not in self.sources:
            return
        check_same_data(state_dict, self._recipe(), self._source("train"))
        self._resumed = Position(**state_dict["position"])
        checkpoint = trainer._checkpoint_connector._loaded_checkpoint
        align_loops(checkpoint["loops"]["fit_loop"], self._resumed, self.accumulation)

    # ---------------------------------------------------------------- beside the training

    def probe_loaders(self, max_bank: int) -> tuple[Loader, Loader]:
        """Loaders of a bank and of the queries of a probe: each rank its part, padded rows marked, no augmentation.

        Args:
            max_bank: The bank has at most this many training samples, drawn with the seed; queries are all held-out.

        Raises:
            ValueError: There are no labels, or no held-out data.
        """
        source = self._source("train")
        if not source.manifest.is_labelled:
            raise ValueError(f"{source.name} has no labels to probe")
        bank = source.manifest.select(some_rows(source.manifest, max_bank, self.seed))
        return self._evaluation_loader("train", bank), self._evaluation_loader("val")

    def samples(self, split: Split, indices: list[int]) -> Batch:
        """Samples by their index, as evaluation crops them; bad ones are left out where some may be skipped.

        Raises:
            ValueError: There is no such sample, or it cannot be read, or none can; names it.
        """
        manifest, skip_bad = self._source(split).manifest, self.bad_samples.limit > 0
        return pick(manifest, indices, self.evaluate, skip_bad=skip_bad, patience=self.patience)

    def key_of(self, split: Split, index: int) -> str:
        """The name of a sample in its shard or folder."""
        manifest = self._source(split).manifest
        return manifest.keys[manifest.row_of(index)]

    # ---------------------------------------------------------------- parts

    @property
    def _trainer(self) -> L.Trainer:
        if self.trainer is None:
            raise ValueError("the data module has no trainer yet: hand it to a Trainer first")
        return self.trainer

    def _source(self, split: Split) -> Source:
        if split not in self.sources:
            raise ValueError(f"no {split} data: name some with `data.{split}`")
        return self.sources[split]

    def _world(self) -> tuple[int, int]:
        """Rank and number of the processes that read different data."""
        strategy = self.trainer.strategy if self.trainer is not None else None
        if not isinstance(strategy, ParallelStrategy):
            return 0, 1
        return strategy.distributed_sampler_kwargs["rank"], strategy.distributed_sampler_kwargs["num_replicas"]

    def _training_lanes(self) -> Lanes:
        return self.lanes or lanes_for(self._source("train").manifest, self.global_batch_size // self.repeats)

    def _recipe(self) -> dict[str, Any]:
        """What the order of the training samples depends on beside the data."""
        return {
            "global_batch_size": self.global_batch_size,
            "repeats": self.repeats,
            "seed": self.seed,
            "lanes": asdict(self._training_lanes()),
        }

    def _stands(self) -> Position:
        """What has been trained on; a step begun but not finished counts as not begun."""
        trainer = self._trainer
        epochs = trainer.fit_loop.epoch_progress.state_dict()["current"]
        batches = trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]
        if epochs["started"] == epochs["processed"]:  # between two epochs
            return Position(epochs["processed"])
        step, begun = divmod(batches["processed"], self.accumulation)
        before = trainer.state.stage == RunningStage.TRAINING and batches["completed"] < batches["processed"]
        validated = trainer.fit_loop.epoch_loop.val_loop.batch_progress.state_dict()["current"]
        is_amid = trainer.interrupted or validated["completed"] < validated["processed"]
        within = trainer.state.stage == RunningStage.VALIDATING and is_amid
        return Position(epochs["processed"], step, validation_pending=not begun and (before or within))

    def _position(self) -> tuple[int, int]:
        """Where the next iteration over the training data begins."""
        if self.trainer is None:
            self._passes += 1
            return self._passes - 1, 0
        epoch = self._trainer.fit_loop.epoch_progress.state_dict()["current"]["processed"]
        return epoch, self._resumed.step if self._resumed.epoch == epoch else 0

    def _evaluation_loader(self, split: Split, manifest: Manifest | None = None) -> Loader:
        """Every sample once, in batches no larger than the training's and as full as the ranks allow."""
        manifest = manifest or self._source(split).manifest
        rank, world_size = self._world()
        batch_size = world_size * min(self.micro_batch_size, -(-len(manifest) // world_size))
        stream = MicroBatches(
            manifest,
            self.evaluate,
            Slice(rank, world_size),
            batch_size,
            lanes_for(manifest, batch_size),
            shuffle_seed=None,
            patience=self.patience,
        )
        return self._loader(stream, split, lambda: (0, 0))

    def _loader(self, stream: MicroBatches, split: str, position: Callable[[], tuple[int, int]]) -> Loader:
        workers = workers_for(self.num_workers, self.trainer.num_devices if self.trainer is not None else 1)
        self._loaders.append(
            Loader(
                stream,
                position,
                split,
                self.bad_samples,
                lambda: self.waiting(),
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=self.trainer is not None and not isinstance(self.trainer.accelerator, CPUAccelerator),
            )
        )
        return self._loaders[-1]


def data_of(trainer: object) -> ShardDataModule | None:
    """What a trainer trains on, where it is ours: Lightning's Trainer has its data module only once it has one."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ShardDataModule) else None


def workers_for(asked: int | Literal["auto"], num_devices: int) -> int:
    """Processes that read on each of a machine's devices.

    Args:
        asked: Their number; "auto" is one core less than a device's share, and a single one would only get in the way.
        num_devices: Of this machine.
    """
    if asked != "auto":
        return asked
    spare = suggested_max_num_workers(num_devices)
    return min(spare, MAX_AUTO_WORKERS) if spare > 1 else 0


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)
