"""Small shards made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest
from shard_making import encoded, write_tar


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., list[Path]]:
    """Shards of the given sample counts; sample i of the data set is an image of colour i with label i modulo 3."""

    def make(counts: list[int], suffix: str = ".tar", labels: bool = True, folder: str = "shards") -> list[Path]:
        (tmp_path / folder).mkdir(exist_ok=True)
        paths, number = [], 0
        for shard, count in enumerate(counts):
            members = {}
            for _ in range(count):
                members[f"{number:04d}.png"] = encoded(number % 256)
                if labels:
                    members[f"{number:04d}.cls"] = str(number % 3).encode()
                members[f"{number:04d}.json"] = b"{}"
                number += 1
            paths.append(write_tar(tmp_path / folder / f"shard-{shard:03d}{suffix}", members))
        return paths

    return make
