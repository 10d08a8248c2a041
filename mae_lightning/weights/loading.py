"""From a file to a model's weights; nothing in the file runs as code."""

import pickle
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mae_lightning.models import MaskedAutoencoder
from mae_lightning.weights.card import CARD_KEY
from mae_lightning.weights.official import from_official

PREFIX = "model."
"""Where a task's checkpoint keeps the masked autoencoder."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain values onto the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no checkpoint, or holds objects other than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist; give the path of a .ckpt or .pth file")
    try:
        with torch.serialization.safe_globals([Namespace]):  # official files hold their arguments
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"checkpoint {path} holds more than tensors and plain values, or is none: {reason}") from error
    except Exception as error:  # the reader of a hostile or cut file fails in ways that no list names
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint {path} is damaged or none: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def load_pretrained(model: MaskedAutoencoder, path: str | Path) -> str:
    """Starts a masked autoencoder from a checkpoint of this package or one in the official layout.

    An encoder alone is accepted: the decoder then keeps its fresh weights. The line returned says what was loaded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or its tensors are not this model's: the first differences are named.
    """
    checkpoint = read_checkpoint(path)
    if CARD_KEY in checkpoint:
        weights = checkpoint["state_dict"]
        state = {key.removeprefix(PREFIX): value for key, value in weights.items() if key.startswith(PREFIX)}
        check_fit(model, state, str(path))
        model.load_state_dict(state)
        return f"started from {path}: encoder and decoder"
    state = from_official(checkpoint)
    has_decoder = "mask_token" in state
    expected = model if has_decoder else model.encoder
    check_fit(expected, state if has_decoder else _encoder_part(state), str(path))
    model.load_state_dict(state, strict=has_decoder)
    return f"started from {path}: " + ("encoder and decoder" if has_decoder else "encoder; the decoder is fresh")


def check_fit(module: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Names what is missing, left over or of another shape before anything is loaded.

    Raises:
        ValueError: Something is; nothing was changed.
    """
    problems = differences(module.state_dict(), state)
    if problems:
        raise ValueError(f"{source} does not fit the model: {problems}")


def differences(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """What is missing, left over or of another shape in a state, the first four; empty if it fits."""
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key} is {list(state[key].shape)}, the model's is {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(problems[:4]) + more


def _encoder_part(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("encoder."): value for key, value in state.items()}
