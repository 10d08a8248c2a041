"""Features of a whole data set, computed once and kept."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mae_lightning.data import Batch
from mae_lightning.data.loader import BadSamples, Loader
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.plan import Slice
from mae_lightning.data.reading import lanes_for
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.statistics import channels_and_type
from mae_lightning.data.stream import MicroBatches
from mae_lightning.data.transforms import EvaluationCrop
from mae_lightning.evaluation.encoders import FrozenEncoder


@dataclass(frozen=True)
class Labelled:
    """Features with their labels.

    Attributes:
        features: One row a sample, pooled or with its tokens.
        labels: Their classes.
    """

    features: Float[Tensor, "sample *token dim"]
    labels: Int64[Tensor, "sample"]

    def __getitem__(self, rows: Int64[Tensor, "chosen"]) -> "Labelled":
        return Labelled(self.features[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Classes up to the highest label that occurs."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class FeatureSet:
    """What an encoder makes of a labelled data set.

    Attributes:
        pooled: One feature a sample.
        tokens: The patch tokens of each sample, in half precision; None if they were not asked for.
    """

    pooled: Labelled
    tokens: Labelled | None


def batches_of(manifest: Manifest, make: SampleMaker, batch_size: int, num_workers: int) -> Loader:
    """Every sample once, unshuffled and without augmentation."""
    size = min(batch_size, len(manifest))
    stream = MicroBatches(manifest, make, Slice(), size, lanes_for(manifest, size), shuffle_seed=None)
    return Loader(stream, lambda: (0, 0), "evaluation", BadSamples(), num_workers=num_workers)


def cropped_batches(
    manifest: Manifest,
    image_size: tuple[int, int],
    num_channels: int,
    crop_fraction: float,
    batch_size: int,
    num_workers: int = 0,
) -> Loader:
    """The same of samples that are resized and cropped at their centre.

    Args:
        manifest: The samples.
        image_size: Height and width that they are brought to, in pixels.
        num_channels: Likewise the channels.
        crop_fraction: Share of the resized image's shorter side that is kept.
        batch_size: Images of a batch.
        num_workers: Processes that read.
    """
    _, dtype = channels_and_type(manifest)
    make = SampleMaker(image_size, num_channels, dtype, seed=0, evaluation=EvaluationCrop(crop_fraction))
    return batches_of(manifest, make, batch_size, num_workers)


def extract(encoder: FrozenEncoder, batches: Iterable[Batch], *, keep_tokens: bool = False) -> FeatureSet:
    """Runs the encoder over all samples; padding is left out.

    Args:
        encoder: On the device that computes.
        batches: Labelled samples.
        keep_tokens: Whether the patch tokens are kept too.
    """
    device = encoder.normalize.mean.device
    pooled, tokens, labels = [], [], []
    for batch in batches:
        values = encoder.tokens(batch["image"].to(device))
        valid = batch["valid"].to(device)
        pooled.append(encoder.pool(values)[valid].float())
        labels.append(batch["label"].to(device)[valid])
        if keep_tokens:
            tokens.append(encoder.patch_tokens(values)[valid].half())
    label = torch.cat(labels)
    return FeatureSet(Labelled(torch.cat(pooled), label), Labelled(torch.cat(tokens), label) if tokens else None)
