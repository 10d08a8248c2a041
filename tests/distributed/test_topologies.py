"""R4 in real processes: uneven shards, any number of ranks, workers and accumulation, the same global batches."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import mae_lightning

ROOT = Path(mae_lightning.__file__).parents[1]
SAMPLES = 100
"""Four global batches of 24, and a tail of 4."""
BAD = (3, 15, 30, 45, 60, 75, 90, 95)
Report = dict[str, Any]

_spec = importlib.util.spec_from_file_location("shard_making", ROOT / "tests/unit/data/shard_making.py")
assert _spec is not None
assert _spec.loader is not None
shard_making = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shard_making)


def uneven_shards(folder: Path, number: int) -> str:
    """Shards with 1, 2, 3, ... shares of the samples."""
    folder.mkdir()
    ends = [SAMPLES * step * (step + 1) // (number * (number + 1)) for step in range(number + 1)]
    for shard in range(number):
        members = {
            f"{place:03}.{kind}": data
            for place in range(ends[shard], ends[shard + 1])
            for kind, data in (("png", shard_making.encoded(place)), ("cls", b"%d" % (place % 2)))
        }
        shard_making.write_tar(folder / f"{shard}.tar", members)
    return f"{folder}/*.tar"


def case(shards: str, workers: int, accumulation: int, epochs: int = 2, max_bad_samples: int = 0) -> dict[str, Any]:
    return {
        "shards": shards,
        "workers": workers,
        "accumulation": accumulation,
        "epochs": epochs,
        "max_bad_samples": max_bad_samples,
    }


def reports(folder: Path, ranks: int, cases: Sequence[dict[str, Any]]) -> list[list[Report]]:
    """The ledgers of each case, one a rank, of a run under torchrun."""
    script = Path(__file__).with_name("read_shards.py")
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(folder), str(ranks), json.dumps(cases)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    by_rank = [json.loads((folder / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]
    return [list(ledgers) for ledgers in zip(*by_rank, strict=True)]


def global_batches(ledgers: Sequence[Report]) -> dict[tuple[int, int], list[int]]:
    """The samples of each (epoch, step), rank after rank and micro-batch after micro-batch."""
    batches: dict[tuple[int, int], list[int]] = {}
    for ledger in ledgers:
        for epoch, step, index in ledger["trained"]:
            batches.setdefault((epoch, step), []).extend(index)
    return batches


def check_one_run(ledgers: Sequence[Report]) -> None:
    """Equal steps everywhere, nothing twice an epoch, every sample validated once."""
    assert {ledger["steps"] for ledger in ledgers} == {8}
    assert len({len(ledger["trained"]) for ledger in ledgers}) == 1
    for epoch in range(2):
        used = [index for place, rows in global_batches(ledgers).items() if place[0] == epoch for index in rows]
        assert len(used) == len(set(used)) == 96
    assert sorted(index for ledger in ledgers for index in ledger["validated"]) == list(range(SAMPLES))


@pytest.mark.slow
def test_ranks_workers_and_accumulation_change_no_global_batch(tmp_path: Path) -> None:
    shards = uneven_shards(tmp_path / "shards", 7)
    cases = [case(shards, workers, accumulation) for workers in range(5) for accumulation in (1, 2)]
    found = []
    for ranks in (1, 2, 4):
        for ledgers in reports(tmp_path, ranks, cases):
            check_one_run(ledgers)
            found.append({place: sorted(rows) for place, rows in global_batches(ledgers).items()})
    assert len(found) == 30
    assert all(batches == found[0] for batches in found)


@pytest.mark.slow
def test_six_runs_of_two_processes_on_uneven_shards(tmp_path: Path) -> None:
    cases = [
        case(uneven_shards(tmp_path / str(number), number), workers, 1 + number % 2)
        for number, workers in ((1, 0), (2, 1), (3, 2), (5, 3), (8, 4), (9, 2))
    ]
    for ledgers in reports(tmp_path, 2, cases):
        check_one_run(ledgers)


def test_bad_samples_of_all_ranks_count_together(tmp_path: Path) -> None:
    """Neither rank meets all 8, together they do: one more than 7, so that both stop."""
    members = {f"{place:03}.png": shard_making.encoded(place) for place in range(96)}
    bad = {f"{place:03}.png": b"no image" for place in BAD}
    (tmp_path / "bad").mkdir()
    shard_making.write_tar(tmp_path / "bad/0.tar", members | bad)
    shards = f"{tmp_path}/bad/*.tar"
    allowed, refused = reports(tmp_path, 2, [case(shards, 0, 1, 1, limit) for limit in (8, 7)])
    assert [ledger["steps"] for ledger in allowed] == [4, 4]
    assert all("error" not in ledger for ledger in allowed)
    for ledger in refused:
        assert "(8 bad samples over all processes, and max_bad_samples is 7)" in ledger["error"]
