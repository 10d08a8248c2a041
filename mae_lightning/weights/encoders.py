"""The encoder of a checkpoint: into a model that has one, or as a plain timm model."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mae_lightning.weights.building import build_timm, differences, holding
from mae_lightning.weights.card import CheckpointCard
from mae_lightning.weights.content import HEAD, Said, Weights, completed
from mae_lightning.weights.loading import fit_to
from mae_lightning.weights.opening import open_weights
from mae_lightning.weights.resizing import resized

FINAL_NORMS = ("norm.", "fc_norm.")
CROP = 1.0
"""Share of the shorter side that evaluation keeps, as `evaluate` does; 0.875 is ImageNet's habit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder's weights, for a model that is there.

    Attributes:
        weights: What the file holds.
    """

    weights: Weights

    @property
    def card(self) -> CheckpointCard | None:
        """What the file says of itself; None for foreign files."""
        return self.weights.card

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The encoder under timm's names."""
        return self.weights.encoder

    def load_into(self, model: nn.Module) -> str:
        """Loads everything below the head of a timm model; the line returned says what stays fresh and what was fitted.

        A final norm that only one of the two has, because the other norms after its pooling, stays fresh as in the
        official recipe. Positions are fitted to another image size; other patches or channels are for ``convert``.

        Raises:
            ValueError: The weights are not this model's; the file's encoder and all differences are named.
        """
        weights, fitted = fit_to(self.weights, model)
        own = {key: value for key, value in model.state_dict().items() if not key.startswith(HEAD)}
        state = {key: value for key, value in weights.encoder.items() if key in own or not key.startswith(FINAL_NORMS)}
        fresh = {key for key in own if key.startswith(FINAL_NORMS) and key not in state}
        problems = differences({key: value for key, value in own.items() if key not in fresh}, state)
        if problems:
            raise ValueError(f"{weights.source} holds {holding(weights)}, which does not fit the model: {problems}")
        model.load_state_dict(state, strict=False)
        return f"encoder of {weights.source}{fitted}" + ("; fresh final norm and head" if fresh else "; fresh head")


def read_encoder(path: str | Path) -> PretrainedEncoder:
    """The encoder in a file of any format, whatever its objective.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds no encoder.
    """
    return PretrainedEncoder(open_weights(path))


def load_encoder(
    name: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    head: bool = False,
    pretrained: bool = True,
    **said: Any,
) -> Any:
    """A plain timm model in eval mode, with the weights that a path or name stands for.

    Its ``pretrained_cfg`` has size, mean and deviation, so that ``timm.data.resolve_model_data_config(model)`` gives
    the right transforms. ``model(images)`` is the mean patch token after the final norm, ``forward_features`` all
    tokens, and ``forward_intermediates`` maps of any layer.

    Example::

        import timm
        from mae_lightning import load_encoder

        model = load_encoder("runs/quickstart-pretrain/checkpoints/last.ckpt")
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        images = transform(picture.convert("L")).unsqueeze(0)
        feature = model(images)
        maps = model.forward_intermediates(images, indices=[3, 5], intermediates_only=True)

    Args:
        name: A checkpoint of this package, an official file, a file of timm's, a Hugging Face folder, or a timm name.
        image_size: Height and width of other images: sin-cos positions are computed anew, learned ones resampled.
        head: Whether a classifier keeps its head and gives logits.
        pretrained: False for the architecture with fresh weights; of a file, by its card.
        said: What a foreign file does not say; see :class:`Said`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or its tensors are not those of the model that it describes.
    """
    facts = Said(**said)
    weights = completed(open_weights(name, facts, image_size=image_size, pretrained=pretrained), facts)
    if image_size is not None and image_size != weights.known.image_size:
        weights, lines = resized(weights, image_size=image_size)
        log.info("%s: %s", name, "; ".join(lines))
    if weights.assumed:
        log.warning("%s does not say it; assumed: %s", name, " and ".join(weights.assumed))
    model = build_timm(weights, head=head, pretrained=pretrained)
    model.pretrained_cfg = _settings(weights.known, model)
    return model


def _settings(card: CheckpointCard, model: Any) -> dict[str, Any]:
    """The description that timm has of a model's weights."""
    names = card.class_names or ()
    known = dict(getattr(model, "pretrained_cfg", None) or {"crop_pct": CROP, "interpolation": "bicubic"})
    return known | {
        "input_size": (card.num_channels, *card.image_size),
        "mean": card.mean,
        "std": card.std,
        "num_classes": model.num_classes,
        "label_names": names if len(names) == model.num_classes > 0 else None,  # some alone would be another's
    }
