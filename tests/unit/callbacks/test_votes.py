"""What a process notes of signals, and what it agrees on with others."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import MagicMock

import pytest
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from mae_lightning.callbacks.preemption import SIGNALS, StopRequest
from mae_lightning.callbacks.votes import Votes


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nothing_else(number: signal.Signals) -> None:
    request = StopRequest()
    request.listen()
    assert request.name is None
    os.kill(os.getpid(), number)
    assert request.name == number.name


def test_when_all_is_over_signals_end_the_process() -> None:
    request = StopRequest()
    request.listen()
    request.ignore()
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in SIGNALS)


def test_alone_one_learns_at_once() -> None:
    votes = Votes()
    assert not votes.cast(False)
    assert votes.cast(True)


def test_votes_wait_as_long_as_the_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, asked = DDPStrategy(timeout=timedelta(days=3)), []
    monkeypatch.setattr(dist, "new_group", lambda **options: asked.append(options) or MagicMock(spec=dist.ProcessGroup))
    Votes().meet(strategy)
    assert asked == [{"backend": "gloo", "timeout": timedelta(days=3)}]
