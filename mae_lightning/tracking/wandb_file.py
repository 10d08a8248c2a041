"""W&B's own file of a run, read without W&B's server.

It is a header of 7 bytes, then LevelDB's log format: blocks of 32 KiB, in them parts of records, each behind a
checksum of 4 bytes, a length of 2 and a kind of 1. A record is a protocol buffer of
``wandb.proto.wandb_internal_pb2``.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

MAGIC, HEADER_BYTES = b":W&B", 7
BLOCK_BYTES = 32 * 1024
PART = struct.Struct("<IHB")
FULL, LAST = 1, 4


@dataclass
class OfflineRun:
    """What a run logged, as far as it came.

    Attributes:
        run_id: Its id.
        config: What was set.
        summary: Its figures: the last of each.
        history: What was logged, a row a step.
    """

    run_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: Any) -> None:
        """Takes in what a record says."""
        if record.HasField("run"):
            self.run_id = record.run.run_id
            self.config |= _values(record.run.config.update)
        elif record.HasField("config"):
            self.config |= _values(record.config.update)
        elif record.HasField("summary"):
            self.summary |= _values(record.summary.update)
        elif record.HasField("history"):
            row = _values(record.history.item)
            self.history.append(row)
            self.summary |= row


def read_offline_run(path: Path) -> OfflineRun:
    """Reads a ``.wandb`` file; of one that is still written, or was cut off, what is whole.

    Raises:
        ValueError: It is no such file, or damaged.
    """
    run = OfflineRun()
    try:
        for record in read_records(path):
            run.add(record)
    except ValueError as error:
        raise ValueError(f"{path} is no file of a W&B run that can be read: {error}") from None
    return run


def read_records(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file in their order.

    Raises:
        ValueError: Its header or a checksum is another.
    """
    data, place, whole = path.read_bytes(), HEADER_BYTES, b""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("its header is another")
    while place + PART.size <= len(data):
        rest = BLOCK_BYTES - place % BLOCK_BYTES
        if rest < PART.size:  # too little for a part: the block is filled up
            place += rest
            continue
        checksum, length, kind = PART.unpack_from(data, place)
        place += PART.size
        part = data[place : place + length]
        if len(part) < length:
            return
        if zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"the part before byte {place + length} is damaged")
        place, whole = place + length, whole + part
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
            whole = b""


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
