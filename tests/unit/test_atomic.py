"""Files that are there whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mae_lightning.atomic import write_atomically

TEXTS = ["a" * 2**20, "b" * 2**20]
WRITER = """
import sys
from pathlib import Path
from mae_lightning.atomic import write_atomically
while True:
    write_atomically(Path(sys.argv[1]), sys.argv[2] * 2**20)
"""


def test_readers_find_a_whole_file_while_two_write_and_after_they_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_atomically(path, TEXTS[0])
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "ab"]
    seen: set[str] = set()
    while len(seen) < 2:
        seen.add(path.read_text())
        assert seen <= set(TEXTS)
        assert all(writer.poll() is None for writer in writers)
    for writer in writers:
        writer.kill()
        writer.wait()
    assert path.read_text() in TEXTS


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new/note.json"
    write_atomically(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "after")
    assert [file.name for file in path.parent.iterdir()] == ["note.json"]
    assert path.read_text() == "before"
