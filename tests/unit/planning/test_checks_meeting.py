"""Ranks that meet, in threads, and what keeps them from it."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mae_lightning.planning.checks.meeting import Meeting, NoMeetingError, open_store
from mae_lightning.planning.checks.ranks import Launch

SECONDS = 1.0


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def side_by_side(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returns or raises."""
    results: list[Any] = [None] * len(calls)

    def work(place: int) -> None:
        try:
            results[place] = calls[place]()
        except NoMeetingError as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def rank(number: int, port: int, world_size: int = 2) -> Launch:
    return Launch("torchrun", number, world_size, number, world_size, "127.0.0.1", port)


def talk(launch: Launch) -> tuple[list[int], dict[int, str], bool]:
    meeting = Meeting(launch, SECONDS)
    told = meeting.gather("report", f"I am {launch.rank}")
    agreed = meeting.agree(launch.rank == 0, "verdict")
    meeting.part()
    return meeting.present, told, agreed


def test_ranks_meet(port: int) -> None:
    first, second = side_by_side(lambda: talk(rank(0, port)), lambda: talk(rank(1, port)))
    assert first == ([0, 1], {0: "I am 0", 1: "I am 1"}, True)
    assert second == ([0, 1], {1: "I am 1"}, True)  # rank 0's word


def test_those_that_came_go_on_without_the_others(port: int) -> None:
    begun = time.monotonic()
    first, second = side_by_side(lambda: talk(rank(0, port, 4)), lambda: talk(rank(2, port, 4)))
    assert first[0] == second[0] == [0, 2]
    assert sorted(first[1]) == [0, 2]
    assert time.monotonic() - begun < 10


def test_a_rank_that_comes_too_late(port: int) -> None:
    meeting = Meeting(rank(0, port), 0.1)
    assert meeting.present == [0]
    with pytest.raises(NoMeetingError) as raised:
        Meeting(rank(1, port), SECONDS)
    assert "came when rank 0 had waited" in raised.value.finding.text
    assert "all ranks at once" in raised.value.finding.cure


def test_addresses_that_lead_nowhere(port: int) -> None:
    nowhere = "no-such-machine.invalid"
    for number, text in ((0, f"is not reached as {nowhere}"), (1, f"{nowhere}:{port} (the name is unknown)")):
        with pytest.raises(NoMeetingError) as raised:
            open_store(Launch("torchrun", number, 2, number, 2, nowhere, port), SECONDS)
        assert text in raised.value.finding.text
        assert "MASTER_ADDR" in raised.value.finding.cure
