"""From a file to a masked model's weights, as pretraining starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mae_lightning.models import MaskedModel, patch_grid, resample_positions
from mae_lightning.weights.building import check_fit
from mae_lightning.weights.content import Weights
from mae_lightning.weights.opening import open_weights
from mae_lightning.weights.resizing import fit_grid, fitting_positions


def load_pretrained(model: MaskedModel, path: str | Path) -> str:
    """Starts a masked model from a checkpoint of any format.

    An encoder alone is accepted: the decoder then keeps its fresh weights. Positions are fitted to another image size.
    The line returned says what was loaded and what was fitted.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or its tensors are not this model's: all differences are named.
    """
    weights, fitted = fit_to(open_weights(path), model.encoder)
    line = f"started from {path}: " + ("encoder and decoder" if weights.decoder else "encoder; the decoder is fresh")
    encoder = {f"encoder.{name}": value for name, value in weights.encoder.items()}
    if not weights.decoder:
        check_fit(model.encoder, weights.encoder, str(path))
        model.load_state_dict(encoder, strict=False)
        return line + fitted
    decoder = dict(weights.decoder)
    if fitted and "decoder_pos_embed" in decoder:
        decoder["decoder_pos_embed"], _ = fitting_positions(decoder["decoder_pos_embed"], _grid(weights), model.grid)
    check_fit(model, encoder | decoder, str(path))
    model.load_state_dict(encoder | decoder)
    return line + fitted


def fit_to(weights: Weights, model: Any) -> tuple[Weights, str]:
    """Position embeddings fitted to a timm model's image size, and the end of a line that says so."""
    if "pos_embed" not in weights.encoder or not hasattr(model, "pos_embed"):
        state = resample_positions(weights.encoder, model)
        changed = any(state[name] is not value for name, value in weights.encoder.items())
        return replace(weights, encoder=state), "; relative positions resampled for its windows" if changed else ""
    state, how = fit_grid(weights.encoder, _known_grid(weights), model.patch_embed.grid_size)
    return replace(weights, encoder=state), "" if how is None else f"; {how}"


def _known_grid(weights: Weights) -> tuple[int, int] | None:
    """Rows and columns of the file's patches, where the file says for which images it is."""
    if weights.card is None or "patch_embed.proj.weight" not in weights.encoder:
        return None
    _, _, *patch = weights.encoder["patch_embed.proj.weight"].shape
    return patch_grid(weights.card.image_size, (patch[0], patch[1]))


def _grid(weights: Weights) -> tuple[int, int]:
    """The same, a square where the file does not say."""
    side = round((weights.decoder["decoder_pos_embed"].shape[1]) ** 0.5)
    return _known_grid(weights) or (side, side)
