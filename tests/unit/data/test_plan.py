"""The plan: exact, elastic, equal on all ranks. No file is read here."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_lightning.data.plan import (
    PADDING,
    EpochOrder,
    Lanes,
    Slice,
    default_lanes,
    draw,
    evaluation_order,
    steps_of,
    training_order,
)

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=9).map(lambda counts: np.array(counts, np.int64))
LANES = st.builds(
    Lanes, slots=st.sampled_from([1, 2, 4]), phases=st.integers(1, 5), buffer=st.none() | st.integers(0, 50)
)


def rows_of(order: EpochOrder) -> np.ndarray:
    """The rows of each global batch."""
    return order.line[order.table]


def read_by_all(order: EpochOrder, world: int, accumulation: int, workers: int, first_step: int = 0) -> np.ndarray:
    """The rows of each global batch as ranks, micro-batches and workers read them, put together as training does."""
    steps = len(order.table) - first_step
    ranks = []
    for rank in range(world):
        part = Slice(rank, world, accumulation)
        read = [part.of(order, first_step, w, max(workers, 1)) for w in range(max(workers, 1))]
        ranks.append(np.array(round_robin(read), np.int64).reshape(steps, order.table.shape[1] // world))
    return order.line[np.concatenate(ranks, axis=1)]


def round_robin(workers: list[np.ndarray]) -> list[np.ndarray]:
    turns = itertools.zip_longest(*workers)
    return [batch for turn in turns for batch in turn if batch is not None]


@given(COUNTS, st.sampled_from([4, 8, 12]), st.integers(0, 5), st.integers(0, 3), LANES)
def test_training_uses_each_sample_at_most_once_in_whole_batches(
    counts: np.ndarray, batch: int, seed: int, epoch: int, lanes: Lanes
) -> None:
    total = int(counts.sum())
    if total < batch:
        with pytest.raises(ValueError, match=f"{total} training samples do not fill one global batch of {batch}"):
            training_order(counts, batch, seed, epoch, lanes)
        return
    rows = rows_of(training_order(counts, batch, seed, epoch, lanes))
    assert rows.shape == (total // batch, batch)
    assert len(np.unique(rows)) == rows.size
    assert rows.min() >= 0
    assert rows.max() < total


@given(COUNTS, st.sampled_from([4, 8, 12]), LANES)
def test_evaluation_uses_each_sample_exactly_once(counts: np.ndarray, batch: int, lanes: Lanes) -> None:
    total = int(counts.sum())
    rows = rows_of(evaluation_order(counts, batch, lanes))
    assert len(rows) == steps_of(total, batch, training=False) == -(-total // batch)
    assert sorted(rows[rows != PADDING]) == list(range(total))
    assert (rows == PADDING).sum() == rows.size - total < batch


@given(COUNTS, st.sampled_from([8, 16]), st.integers(0, 3), LANES, st.data())
def test_no_topology_changes_a_global_batch(
    counts: np.ndarray, batch: int, epoch: int, lanes: Lanes, data: st.DataObject
) -> None:
    counts = counts + batch
    order = training_order(counts, batch, 0, epoch, lanes)
    world, accumulation = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.sampled_from([1, 2]))
    workers, first = data.draw(st.integers(0, 4)), data.draw(st.integers(0, len(order.table)))
    read = read_by_all(order, world, accumulation, workers, first)
    np.testing.assert_array_equal(read, rows_of(order)[first:])


def test_every_cell_of_shards_ranks_and_workers_takes_equal_steps_and_validates_exactly() -> None:
    """Fault R4: 1-9 shards x 1-4 ranks x 0-4 workers."""
    cells = 0
    for shards, world, workers in itertools.product(range(1, 10), range(1, 5), range(5)):
        counts = np.array([3 + 5 * (shard % 3) + shard for shard in range(shards)]) + 8
        training = training_order(counts, 4 * world if shards > 1 else world, 0, 0, Lanes(1, 2, 8))
        held_out = evaluation_order(counts, 4 * world, Lanes(world, 2))
        for order in (training, held_out):
            parts = [
                [Slice(rank, world).of(order, 0, w, max(1, workers)) for w in range(max(1, workers))]
                for rank in range(world)
            ]
            assert {sum(map(len, part)) for part in parts} == {len(order.table)}
        rows = read_by_all(held_out, world, 1, workers)
        assert sorted(rows[rows != PADDING]) == list(range(counts.sum()))
        cells += 1
    assert cells == 180


def test_each_epoch_has_an_order_and_a_tail_of_its_own() -> None:
    counts = np.array([5, 7, 9])
    epochs = [rows_of(training_order(counts, 4, 0, epoch, Lanes())) for epoch in range(150)]
    assert len({epoch.tobytes() for epoch in epochs}) == 150
    assert set.union(*(set(range(21)) - set(epoch.ravel().tolist()) for epoch in epochs)) == set(range(21))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    counts = np.array([5, 7, 9])
    first, again, other = (training_order(counts, 4, seed, 3, Lanes()) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.table, again.table)
    np.testing.assert_array_equal(first.line, again.line)
    assert not np.array_equal(rows_of(first), rows_of(other))


def test_the_order_is_pinned_across_versions() -> None:
    """Written down once: a change would make runs of an older version impossible to go on with."""
    rows = rows_of(training_order(np.array([3, 4, 2]), 4, 7, 2, Lanes(2, 2, 3)))
    assert rows.tolist() == [[2, 3, 6, 7], [4, 5, 8, 0]]
    assert draw(7, 2) == 9056553312996090366


@given(st.integers(1, 300), st.integers(0, 20), st.integers(0, 9))
def test_nothing_moves_further_than_the_buffer(length: int, buffer: int, seed: int) -> None:
    order = training_order(np.array([length]), 1, seed, 0, Lanes(buffer=buffer))
    moved = np.abs(order.table.ravel() - np.arange(length))
    assert moved.max() <= buffer


def test_an_unbounded_buffer_mixes_a_lane_evenly() -> None:
    """The place of a sample is uniform: of 400 epochs, each place holds the first sample about equally often."""
    places = [np.argmin(training_order(np.array([8]), 1, 0, epoch, Lanes()).table) for epoch in range(400)]
    assert np.bincount(places, minlength=8).min() > 25


@given(COUNTS, LANES)
def test_lanes_are_contiguous_and_serve_one_slot_and_phase(counts: np.ndarray, lanes: Lanes) -> None:
    order = training_order(counts + 8, 8, 0, 0, lanes)
    steps, phases = len(order.table), min(lanes.phases, len(order.table))
    lane = np.searchsorted(order.bounds, order.table, "right") - 1
    slot = np.arange(8) // (8 // lanes.slots)
    np.testing.assert_array_equal(lane, slot * phases + (np.arange(steps) % phases)[:, None])


def test_slots_must_divide_the_global_batch() -> None:
    with pytest.raises(ValueError, match="3 slots do not divide the global batch 8"):
        training_order(np.array([20]), 8, 0, 0, Lanes(slots=3))


@given(st.integers(1, 4096), st.integers(1, 2000), st.floats(1, 1e6), st.sampled_from([8, 64]))
def test_default_lanes_fit_any_batch_and_stay_within_bounds(batch: int, shards: int, size: float, most: int) -> None:
    lanes = default_lanes(batch, shards, size, most)
    assert batch % lanes.slots == 0
    assert 1 <= lanes.slots * lanes.phases <= min(shards, most)
    assert lanes.buffer is not None
    assert lanes.buffer >= 16
