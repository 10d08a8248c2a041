import pytest

from mae_lightning.callbacks import throughput
from mae_lightning.callbacks.throughput import Stopwatch


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def test_pace_and_wait_are_shares_of_training_time_alone(clock: Clock) -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.waiting():
            clock.now += 1
        clock.now += 2  # the step
        figures = watch.batch_ends(16)
        clock.now += 1  # something that waits for the device
        watch.pause()
        with watch.waiting():
            clock.now += 50  # validation
        watch.resume()
    assert figures == {"train/images_per_second": pytest.approx(32 / 7), "train/data_wait_share": pytest.approx(2 / 7)}


def test_a_new_window_forgets_the_old_one(clock: Clock) -> None:
    watch = Stopwatch()
    for seconds in (8, 2):
        watch.restart()
        clock.now += seconds
        figures = watch.batch_ends(16)
    assert figures["train/images_per_second"] == 8.0
