"""The encoder of a checkpoint, into a model that has one: for fine-tuning, probing and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mae_lightning.weights.card import CARD_KEY, CheckpointCard
from mae_lightning.weights.loading import PREFIX, differences, read_checkpoint
from mae_lightning.weights.official import from_official

HEAD = ("head.", "attn_pool.")
"""What a classifier has above its encoder, and never takes from another model."""
FINAL_NORMS = ("norm.", "fc_norm.")


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder's weights under timm's names.

    Attributes:
        source: The file.
        state: The weights; of a classifier those below its head.
        card: What the file says of itself; None for foreign files.
    """

    source: str
    state: Mapping[str, Tensor]
    card: CheckpointCard | None

    def load_into(self, model: nn.Module) -> str:
        """Loads everything below the head of a timm model; the line returned says what stays fresh.

        A final norm that only one of the two has, because the other norms after its pooling, stays fresh as in the
        official recipe.

        Raises:
            ValueError: The weights are not this model's; the file's encoder and the first differences are named.
        """
        own = {key: value for key, value in model.state_dict().items() if not key.startswith(HEAD)}
        state = {key: value for key, value in self.state.items() if key in own or not key.startswith(FINAL_NORMS)}
        fresh = {key for key in own if key.startswith(FINAL_NORMS) and key not in state}
        problems = differences({key: value for key, value in own.items() if key not in fresh}, state)
        if problems:
            raise ValueError(f"{self.source} holds {self._holds()}, which does not fit the model: {problems}")
        model.load_state_dict(state, strict=False)
        return f"encoder of {self.source}" + ("; fresh final norm and head" if fresh else "; fresh head")

    def _holds(self) -> str:
        if self.card is None:
            return "an encoder"
        height, width = self.card.image_size
        return f"the encoder {self.card.encoder} for {height} x {width} images of {self.card.num_channels} channels"


def read_encoder(path: str | Path) -> PretrainedEncoder:
    """The encoder in a checkpoint of this package, whatever its objective, or in the official layout.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or not a checkpoint with an encoder.
    """
    source, checkpoint = str(path), read_checkpoint(path)
    if CARD_KEY not in checkpoint:
        return PretrainedEncoder(source, _below(from_official(checkpoint), "encoder."), None)
    card = CheckpointCard.from_checkpoint(checkpoint, source)
    prefix = PREFIX if card.objective == "classification" else f"{PREFIX}encoder."
    state = _below(checkpoint["state_dict"], prefix)
    return PretrainedEncoder(source, {key: value for key, value in state.items() if not key.startswith(HEAD)}, card)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
