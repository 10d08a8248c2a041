"""What a model says of each sample of a data set, as columns of a table."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mae_lightning.data import Batch
from mae_lightning.data.sources import Source
from mae_lightning.models import Normalization

Columns = dict[str, list[str] | NDArray[Any]]
Answer = Callable[[Tensor], Tensor]


def probabilities_of(model: Any, name: str) -> Answer:
    """Normalised images to the probability of each class.

    Args:
        model: A timm model in eval mode.
        name: For messages.

    Raises:
        ValueError: The model has no classes.
    """
    if not model.num_classes:
        raise ValueError(
            f"{name} holds an encoder without classes; fine-tune it first and give that run's checkpoint, or ask for"
            " --what features"
        )
    return lambda images: model(images).float().softmax(dim=1)


def features_of(model: Any, layer: int | None) -> Answer:
    """Normalised images to their features: the model's own, or the mean patch token after a block.

    Args:
        model: A timm model without a head, in eval mode.
        layer: Number of the block, from 1, of a Swin the stage; None for the pooled feature after the final norm.

    Raises:
        ValueError: There is no such block.
    """
    if layer is None:
        return lambda images: model(images).float()
    count = len(model.feature_info)
    if not 1 <= layer <= count:
        raise ValueError(f"--layer {layer}: the layers are 1 to {count}")

    def answer(images: Tensor) -> Tensor:
        (values,) = model.forward_intermediates(images, indices=[layer - 1], intermediates_only=True)
        pooled: Tensor = values.float().mean(dim=(2, 3))
        return pooled

    return answer


def answers(
    answer: Answer, normalize: Normalization, batches: Iterable[Batch]
) -> Iterator[tuple[NDArray[np.int64], Float[Tensor, "sample value"]]]:
    """The samples' indices and what is said of them, batch by batch; padding is left out.

    Args:
        answer: What to ask of normalised images.
        normalize: On the device that computes.
        batches: The samples.
    """
    device = normalize.mean.device
    for batch in batches:
        valid = batch["valid"]
        if valid.any():
            with torch.inference_mode():
                values = answer(normalize(batch["image"][valid].to(device))).cpu()
            yield batch["index"][valid].numpy(), values


def identity(source: Source, indices: NDArray[np.int64]) -> Columns:
    """Columns that say which samples they are: the shard, the key, and the label where there is one."""
    manifest = source.manifest
    rows = [manifest.row_of(int(index)) for index in indices]
    columns: Columns = {}
    if manifest.packed:
        columns["shard"] = [manifest.containers[int(manifest.container[row])] for row in rows]
    columns["key"] = [manifest.keys[row] for row in rows]
    if manifest.is_labelled:
        columns["label"] = manifest.label[rows]
        if source.class_names is not None:
            columns["label_name"] = [source.class_names[label] for label in manifest.label[rows]]
    return columns


def class_columns(
    probabilities: Float[Tensor, "sample class"], names: tuple[str, ...] | None, top: int | None
) -> Columns:
    """The likeliest class and all probabilities, or the ``top`` likeliest classes with theirs."""
    values, classes = probabilities.topk(min(top or 1, probabilities.shape[1]), dim=1)
    columns: Columns = {}
    for place in range(classes.shape[1]):
        suffix = f"_{place + 1}" if top else ""
        chosen = classes[:, place].numpy()
        columns[f"class{suffix}"] = chosen
        if names:
            columns[f"class_name{suffix}"] = [names[index] for index in chosen]
        columns[f"probability{suffix}"] = values[:, place].numpy()
    return columns if top else columns | {"probabilities": probabilities.numpy()}
