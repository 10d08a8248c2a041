"""The official MAE checkpoints' names of tensors, and ours; values pass through unchanged."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from torch import Tensor

from mae_lightning.weights.building import holding
from mae_lightning.weights.content import Weights, count_blocks

_BLOCK = [
    f"{layer}.{kind}"
    for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
]
_ENCODER = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"]
_DECODER = {
    "mask_token": "mask_token",
    "decoder_pos_embed": "decoder_pos_embed",
    "decoder_embed.weight": "decoder_embed.weight",
    "decoder_embed.bias": "decoder_embed.bias",
    "decoder_norm.weight": "decoder.norm.weight",
    "decoder_norm.bias": "decoder.norm.bias",
    "decoder_pred.weight": "decoder_pred.weight",
    "decoder_pred.bias": "decoder_pred.bias",
}


def from_official(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of an official pretraining checkpoint under a MaskedAutoencoder's names.

    An encoder-only release gives the keys that start with ``encoder.`` alone.

    Args:
        checkpoint: Content of the file, ``{"model": state_dict, ...}``, or the state dict in it.

    Raises:
        ValueError: Keys are missing or unexpected; all of them are named.
    """
    state: Mapping[str, Tensor] = checkpoint.get("model", checkpoint)
    depth, decoder_depth = (count_blocks(state, blocks) for blocks in ("blocks", "decoder_blocks"))
    names = _official_to_ours(depth, decoder_depth, has_decoder=_has_decoder(state))
    check_keys(state, names, "the official layout")
    return {ours: state[official] for official, ours in names.items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A MaskedAutoencoder's weights under the official names, to be saved as ``{"model": ...}``.

    Raises:
        ValueError: The model has tensors that the official layout has no name for (registers, layer scale, another
            decoder), or lacks some of its tensors; all of them are named.
    """
    has_decoder = any(not key.startswith("encoder.") for key in state)
    depth, decoder_depth = (count_blocks(state, blocks) for blocks in ("encoder.blocks", "decoder.blocks"))
    official = _official_to_ours(depth, decoder_depth, has_decoder=has_decoder)
    names = {ours: name for name, ours in official.items()}
    check_keys(state, names, "the official layout, under this package's names")
    return {name: state[ours] for ours, name in names.items()}


def official_state(weights: Weights) -> dict[str, Tensor]:
    """Weights under the official names, also a classifier's, fine-tuned or probed.

    Raises:
        ValueError: The layout has no names for them.
    """
    if not weights.is_plain_vit:
        raise ValueError(f"the official layout is of a plain ViT, and {weights.source} holds {holding(weights)}")
    if weights.has_decoder and (weights.known.masked_model or {}).get("mask_token_in_encoder"):
        raise ValueError(
            f"the official model has no mask tokens in its encoder; {weights.source} has: use --encoder-only"
        )
    if not weights.head and "fc_norm.weight" not in weights.encoder:
        return to_official({**{f"encoder.{name}": value for name, value in weights.encoder.items()}, **weights.decoder})
    norm = "fc_norm" if "fc_norm.weight" in weights.encoder else "norm"
    stem = [name for name in _ENCODER if not name.startswith("norm.")] + [f"{norm}.weight", f"{norm}.bias"]
    state = {**weights.encoder, **weights.head}
    expected = [*stem, *_block_keys("blocks", count_blocks(state, "blocks"))]
    check_keys(state, [*expected, *(["head.weight", "head.bias"] if weights.head else [])], "the official layout")
    return state


def _official_to_ours(depth: int, decoder_depth: int, *, has_decoder: bool) -> dict[str, str]:
    encoder = chain(_ENCODER, _block_keys("blocks", depth))
    names = {key: f"encoder.{key}" for key in encoder}
    if has_decoder:
        pairs = zip(
            _block_keys("decoder_blocks", decoder_depth), _block_keys("decoder.blocks", decoder_depth), strict=True
        )
        names |= _DECODER | dict(pairs)
    return names


def _block_keys(prefix: str, depth: int) -> list[str]:
    return [f"{prefix}.{block}.{key}" for block in range(depth) for key in _BLOCK]


def _has_decoder(official: Iterable[str]) -> bool:
    return any(key == "mask_token" or key.startswith("decoder_") for key in official)


def check_keys(state: Iterable[str], expected: Iterable[str], layout: str) -> None:
    """Refuses a state whose names are not those expected.

    Raises:
        ValueError: Some are missing or unexpected; all of them are named.
    """
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unexpected:
        lists = [("missing", missing), ("unexpected", unexpected)]
        named = "; ".join(f"{word}: {', '.join(keys)}" for word, keys in lists if keys)
        raise ValueError(f"the weights do not fit {layout}: {named}")
