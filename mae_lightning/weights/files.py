"""Files of tensors, read such that nothing in them runs as code and written such that none is ever half there."""

import json
import os
import pickle
import shutil
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mae_lightning.weights.card import CARD_KEY, CheckpointCard
from mae_lightning.weights.sharded import is_sharded, read_sharded


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain values, a file or in shards, onto the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no checkpoint, or holds objects other than tensors and plain values.
    """
    path = Path(path)
    if is_sharded(path):
        return read_sharded(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist; give the path of a .ckpt or .pth file")
    try:
        # Official files hold their arguments; torch warns of pickles that it then refuses.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings(action="ignore"):
            # weights_only is explicit: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD overrides only a call that leaves it out.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"checkpoint {path} holds more than tensors and plain values, or is none: {reason}") from error
    except Exception as error:  # the reader of a hostile or cut file fails in ways that no list names
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint {path} is damaged or none, a whole .ckpt or .pth is needed: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], CheckpointCard | None]:
    """Tensors of a safetensors file, and what it says of itself where this package wrote it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or not of this format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            said = (file.metadata() or {}).get(CARD_KEY)
        card = None if said is None else {CARD_KEY: json.loads(said)}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is damaged or no safetensors file: {error}") from error
    return tensors, None if card is None else CheckpointCard.from_checkpoint(card, str(path))


def write_safetensors(tensors: Mapping[str, Tensor], card: CheckpointCard | None, path: Path) -> None:
    """Writes tensors, with the card in the file's metadata where there is one."""
    metadata = {"format": "pt"} | ({} if card is None else {CARD_KEY: json.dumps(card.to_dict())})
    path.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}, metadata))


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A temporary name beside a file or folder, which takes its own name when the block ends well.

    Raises:
        ValueError: There is something of that name already.
    """
    if out.exists():
        raise ValueError(f"{out} is already there; nothing is overwritten, name another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".writing.{out.name}")
    remove(temporary)
    try:
        yield temporary
        for file in [temporary] if temporary.is_file() else temporary.iterdir():
            _flush(file)
        temporary.replace(out)
    finally:
        remove(temporary)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
