"""Checkpoints in shards: a folder with each process's part, as torch.distributed writes it, read without running any.

torch unpickles such a checkpoint's table of contents, and its entries that are no tensors, without restriction. Here
the table may name a few plain classes of torch, and entries are read as weights only.
"""

import io
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import set_element  # type: ignore[attr-defined]
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict, load

TABLE, REST = ".metadata", "meta.pt"
"""What torch calls the table of contents, and Lightning all that is neither weight nor the optimiser's."""
OPTIMIZER = "optimizer_"
ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))},
    "pathlib": {"Path", "PosixPath"},
    "pathlib._local": {"Path", "PosixPath"},
}


def is_sharded(path: Path) -> bool:
    """Whether the path is the folder of a checkpoint in shards."""
    return (path / TABLE).is_file() and (path / REST).is_file()


def read_sharded(path: Path) -> dict[str, Any]:
    """The whole checkpoint in this process, as if it had been one file.

    Raises:
        ValueError: It is damaged, or would run something.
    """
    content = read_rest(path)
    shards: dict[str, Any] = {}
    with _one_line_errors(path):
        _load_state_dict(shards, SafeReader(path), planner=_WholePlanner(), no_dist=True)
    content["state_dict"] = shards.pop("state_dict", {})
    content["optimizer_states"] = [by_number(shards[name]) for name in sorted(shards) if name.startswith(OPTIMIZER)]
    return content


def load_shards(shards: dict[str, Any], path: Path) -> None:
    """Fills tensors and values in place, each process its part.

    Args:
        shards: What to fill, named and nested as it was saved.
        path: The folder.

    Raises:
        ValueError: It is damaged, would run something, or lacks something.
    """
    with _one_line_errors(path):
        load(shards, storage_reader=SafeReader(path), planner=SafePlanner())


def read_rest(path: Path) -> dict[str, Any]:
    """All of a checkpoint in shards that is neither weight nor the optimiser's.

    Raises:
        ValueError: It is damaged, or holds objects.
    """
    try:
        return dict(torch.load(path / REST, map_location="cpu", weights_only=True))
    except Exception as error:  # as above
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"checkpoint {path}: {REST} is damaged, or holds more than plain values: {reason}") from error


def by_number(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state with parameters counted through its groups, as optimisers themselves write it.

    Args:
        state: ``state`` and ``param_groups``, parameters by name.
    """
    names = [name for group in state["param_groups"] for name in group["params"]]
    number = {name: count for count, name in enumerate(names)}
    groups = [{**group, "params": [number[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {number[name]: value for name, value in state["state"].items()}, "param_groups": groups}


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Says what is wrong with a checkpoint; torch gathers the stack traces of all processes."""
    SafeReader(path).read_metadata()
    try:
        yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        lines = [line.strip() for line in str(causes[0]).splitlines() if line.strip()] or [type(causes[0]).__name__]
        raise ValueError(f"checkpoint {path} is damaged, or holds more than plain values: {lines[0]}") from error


class SafeReader(FileSystemReader):
    """Reads the folder of a checkpoint in shards.

    Raises:
        ValueError: Its table of contents is damaged, or would run something.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The table of contents."""
        folder = Path(self.path)
        try:
            with (folder / TABLE).open("rb") as file:
                table = _TableReader(file).load()
        except Exception as error:  # as above
            raise ValueError(f"checkpoint {folder}: its table of contents {error or 'is cut short'}") from error
        if not isinstance(table, Metadata) or table.storage_meta is None:
            raise ValueError(f"checkpoint {folder}: its table of contents is none of torch's")
        table.storage_meta.load_id = self.load_id
        return table


class SafePlanner(DefaultLoadPlanner):
    """Fills tensors in place; what is no tensor is read as plain values."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Reads one entry."""
        plain = torch.load(value, weights_only=True)
        set_element(self.original_state_dict, self.mappings[read_item.dest_index.fqn], plain)


class _WholePlanner(_EmptyStateDictLoadPlanner):
    """Reads everything that there is, into this process alone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    load_bytes = SafePlanner.load_bytes


class _TableReader(pickle.Unpickler):
    """Knows the classes of a table of contents and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise ValueError(f"names {module}.{name}, which no checkpoint needs: do not use it")
        return super().find_class(module, name)
