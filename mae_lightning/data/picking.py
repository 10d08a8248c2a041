"""Single samples by their index, for pictures and figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mae_lightning.data.batch import Batch
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.reading import made_of
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.urls import Patience

__all__ = ["pick"]


def pick(manifest: Manifest, indices: Sequence[int], make: SampleMaker, *, skip_bad: bool, patience: Patience) -> Batch:
    """Samples by their index, in this order.

    Args:
        manifest: The data.
        indices: Which; one may come several times.
        make: Makes an image of a sample's bytes, without augmentation.
        skip_bad: Whether samples that cannot be read are left out.
        patience: Of remote reads.

    Raises:
        ValueError: There is no such sample, or it cannot be read, or none can; names it.
    """
    rows = np.array([manifest.row_of(index) for index in indices], np.int64)

    def image_of(row: int, data: bytes) -> torch.Tensor:
        return make(data, manifest.kind_of(row), int(manifest.place[row]), epoch=0)

    images = made_of(manifest, np.unique(rows), image_of, skip_bad, patience)
    rows = rows[np.isin(rows, list(images))]
    return {
        "image": torch.stack([images[row] for row in rows.tolist()]),
        "label": torch.from_numpy(manifest.label[rows]),
        "index": torch.from_numpy(manifest.place[rows]),
        "valid": torch.ones(len(rows), dtype=torch.bool),
    }
