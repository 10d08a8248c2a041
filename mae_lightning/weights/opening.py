"""The one way in: whatever a path or name stands for, as :class:`Weights`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.models import clean_state_dict
from torch import Tensor

from mae_lightning.weights import huggingface
from mae_lightning.weights.card import CARD_KEY, CheckpointCard
from mae_lightning.weights.content import HEAD, Said, Weights
from mae_lightning.weights.files import read_checkpoint, read_safetensors
from mae_lightning.weights.official import from_official
from mae_lightning.weights.sharded import is_sharded
from mae_lightning.weights.timm_models import is_timm_name, open_timm

PREFIX = "model."
"""Where a task's checkpoint keeps its model."""
CHECKPOINTS = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")
PROGRAMS = {".onnx": "ONNX", ".pt2": "torch.export"}


def open_weights(
    name: str | Path, said: Said | None = None, *, image_size: tuple[int, int] | None = None, pretrained: bool = True
) -> Weights:
    """The weights that a path or a timm name stands for; foreign files have no card yet.

    Args:
        name: A checkpoint of this package, an official file, a file of timm's, a Hugging Face folder, or a timm name.
        said: What the user says of a foreign file.
        image_size: Of the images, for timm names; by default that of their weights.
        pretrained: False for a timm name's architecture with fresh weights.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds something else, or is no timm name.
    """
    text, path = str(name), Path(name)
    if path.is_dir() and not is_sharded(path):
        return _open_folder(path, said, image_size, pretrained)
    if path.suffix in CHECKPOINTS or path.exists():
        return _open_file(path)
    if is_timm_name(text):
        return open_timm(text, image_size=image_size, pretrained=pretrained)
    raise ValueError(
        f"'{text}' is neither a checkpoint (.ckpt, .pth, .pt) nor a timm model, nor a folder that is there"
    )


def _open_folder(path: Path, said: Said | None, image_size: tuple[int, int] | None, pretrained: bool) -> Weights:
    config = path / huggingface.CONFIG
    if not config.is_file():
        raise ValueError(
            f"the folder {path} has no config.json; a Hugging Face folder has one beside model.safetensors, and of a"
            " run give the file checkpoints/last.ckpt"
        )
    if "architecture" in huggingface.read_json(config):
        return open_timm(f"local-dir:{path}", image_size=image_size, pretrained=pretrained)
    return huggingface.read_folder(path, said)


def _open_file(path: Path) -> Weights:
    if path.suffix in PROGRAMS:
        raise ValueError(
            f"{path} is a program for {PROGRAMS[path.suffix]}, which runs but is not loaded; give the checkpoint it was"
            " made from"
        )
    if path.suffix == ".safetensors":
        state, card = read_safetensors(path)
        return _from_state(state, str(path), "timm", card)
    content = read_checkpoint(path)
    if CARD_KEY in content and "state_dict" in content:
        return _ours(content, str(path))
    card = CheckpointCard.from_checkpoint(content, str(path)) if CARD_KEY in content else None
    state = content.get("model", content.get("state_dict", content))
    kind = "official" if "model" in content else "timm"
    return replace(_from_state(state, str(path), kind, card), trained=_trained(content))


def _ours(content: Mapping[str, Any], source: str) -> Weights:
    card = CheckpointCard.from_checkpoint(content, source)
    if card.objective == "tokenizer":
        raise ValueError(
            f"{source} is a tokenizer, not an encoder; its run's tokenizer.safetensors is for the target Tokens"
        )
    if not isinstance(content["state_dict"], Mapping):
        raise _no_weights(source)
    state = below(content["state_dict"], PREFIX)
    return replace(_split(state, source, "mae_lightning", card), trained=_trained(content))


def _from_state(state: Any, source: str, kind: str, card: CheckpointCard | None) -> Weights:
    """Weights by the names of their tensors."""
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise _no_weights(source)
    state = clean_state_dict(dict(state))
    if any(name.removeprefix("vit.").startswith("embeddings.") for name in state):
        raise ValueError(f"{source} is a Hugging Face file, which does not say what it holds; give its folder")
    if any(name.startswith("encoder.") for name in state):
        kind = "safetensors"
    elif any(name == "mask_token" or name.startswith("decoder_") for name in state):
        kind, state = "official", from_official(state)
    if not any(name.removeprefix("encoder.").startswith("patch_embed.") for name in state):
        raise ValueError(f"{source} holds no vision transformer, its first tensor is '{next(iter(state))}'")
    return _split(state, source, kind, card)


def _no_weights(source: str) -> ValueError:
    return ValueError(f"{source} holds no weights: a .ckpt of this package or {{'model': weights}} would be right")


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What lies under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _split(state: Mapping[str, Tensor], source: str, kind: str, card: CheckpointCard | None) -> Weights:
    """Encoder, head and the rest; where nothing is marked as the encoder's, all but the head is."""
    head = {name: value for name, value in state.items() if name.startswith(HEAD)}
    marked = {name: value for name, value in state.items() if name.startswith("encoder.")}
    rest = {name: value for name, value in state.items() if name not in head and name not in marked}
    if marked:
        return Weights(source, kind, below(marked, "encoder."), head, rest, card)
    return Weights(source, kind, rest, head, card=card)


def _trained(content: Mapping[str, Any]) -> dict[str, int]:
    """Epoch and step where the file has them as numbers."""
    return {
        name: content[key]
        for key, name in (("epoch", "epoch"), ("global_step", "step"))
        if isinstance(content.get(key), int)
    }
