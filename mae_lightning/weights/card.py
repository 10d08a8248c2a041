"""What a checkpoint says of itself, so that whoever opens it later need not guess."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

CARD_KEY = "mae_lightning"
FLOPS_KEY = "flops_per_image"
"""Where a pretraining checkpoint says what a step costs, forward and backward for one image."""
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CheckpointCard:
    """Plain facts beside the weights, enough to rebuild the model without its config.

    Attributes:
        objective: What the model was trained for: ``mae``, ``classification``, ``simmim``, ``tokenizer``; ``unknown``
            of a foreign encoder.
        encoder: The encoder as it was asked for: a name, or explicit sizes.
        decoder: Class and arguments of the decoder; None for an encoder alone.
        target: Class and arguments of what the decoder predicts.
        masked_model: Of a masked autoencoder, what its constructor needs beside encoder, decoder, target and images.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        mean: Mean of each channel, pixels in 0 to 1.
        std: Standard deviation of each channel, the same units.
        package_version: The version of this package that wrote the checkpoint.
        classifier: Of a classifier, what its constructor needs beside encoder and images: number of classes, pooling,
            norm, head.
        class_names: Of a classifier, the names of its labels where they are known.
        started_from: Where the weights came from before this training, where it is known.
        format_version: The version of this card.
    """

    objective: str
    encoder: str | dict[str, Any]
    decoder: dict[str, Any] | None
    target: dict[str, Any] | None
    image_size: tuple[int, int]
    num_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    package_version: str
    masked_model: dict[str, Any] | None = None
    classifier: dict[str, Any] | None = None
    class_names: tuple[str, ...] | None = None
    started_from: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def has_decoder(self) -> bool:
        """Whether the checkpoint can reconstruct images."""
        return self.decoder is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, so that loading needs no trust."""
        card = asdict(self) | {"has_decoder": self.has_decoder}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in card.items()}

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], source: str) -> "CheckpointCard":
        """The card of a loaded checkpoint.

        Raises:
            ValueError: It has no card, a damaged one, or one of a later format; ``source`` names the file.
        """
        if CARD_KEY not in checkpoint:
            raise ValueError(f"{source} was not written by mae_lightning: it does not say what it holds")
        try:
            said: dict[str, Any] = dict(checkpoint[CARD_KEY])
            version, writer = said["format_version"], said["package_version"]
            if version <= FORMAT_VERSION:
                said.pop("has_decoder")
                for key, value in said.items():
                    said[key] = tuple(value) if isinstance(value, list) else value
                return cls(**said)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{source} has a card that is damaged or none of mae_lightning's: {error!r}") from error
        raise ValueError(
            f"{source} has checkpoint format {version}, this version reads up to {FORMAT_VERSION};"
            f" it was written by mae_lightning {writer}"
        )


def describe(component: object) -> dict[str, Any]:
    """A component's class and its constructor's arguments, read from the attributes of the same names.

    Arguments that the component does not keep as attributes of plain type are left out.
    """
    kind = type(component)
    names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    values = {name: getattr(component, name, None) for name in names}
    plain = {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": plain}
