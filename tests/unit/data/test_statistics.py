from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mae_lightning.data.sources import open_source
from mae_lightning.data.statistics import some_rows


@pytest.mark.parametrize(("count", "shards"), [(3, 4), (20, 4), (21, 5), (30, 6), (45, 9), (100, 9)])
def test_some_rows_of_data_that_stream_are_of_as_few_shards_as_hold_them(
    make_shards: Callable[..., list[Path]], count: int, shards: int
) -> None:
    manifest = open_source(str(make_shards([5] * 9)[0].parent), "train").manifest
    remote = replace(manifest, base="https://shards.example.org")
    rows = some_rows(remote, count)
    assert len(rows) == min(count, 45)
    assert np.all(np.diff(rows) > 0)
    assert len(set(remote.container[rows])) <= shards
    assert rows.tolist() == some_rows(remote, count).tolist()
    assert set(remote.container[some_rows(remote, 20)]) <= set(remote.container[some_rows(remote, 30)])
