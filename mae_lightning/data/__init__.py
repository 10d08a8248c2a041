"""From shards, folders or single images to batches: one plan decides order, equality between ranks and resume.

In reading order: `sources` finds the samples, `manifest` is the table of them, `plan` decides who reads what and
when, `reading` fetches bytes, `decode` and `transforms` make pixels, `stream` and `loader` make batches, `module`
hands them to Lightning.
"""

from mae_lightning.data.batch import Batch
from mae_lightning.data.module import ShardDataModule, data_of
from mae_lightning.data.supervised import RandAugmentErase, SingleTryCropFlip
from mae_lightning.data.transforms import (
    Augmentation,
    ColorJitterCropFlip,
    EvaluationCrop,
    FixedCropFlip,
    NoAugmentation,
    RandomResizedCropFlip,
)

__all__ = [
    "Augmentation",
    "Batch",
    "ColorJitterCropFlip",
    "EvaluationCrop",
    "FixedCropFlip",
    "NoAugmentation",
    "RandAugmentErase",
    "RandomResizedCropFlip",
    "ShardDataModule",
    "SingleTryCropFlip",
    "data_of",
]
