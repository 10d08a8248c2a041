"""Files that are there whole or not at all."""

import os
from pathlib import Path

__all__ = ["WRITING", "write_atomically"]

WRITING = ".writing"
"""How the hidden names of files end that are not whole yet."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that readers find the old or the new one, whatever ends the program, and whoever else writes.

    Raises:
        OSError: It could not be written; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}{WRITING}")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
