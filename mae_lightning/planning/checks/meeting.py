"""Where the ranks of a launch find each other, every wait with its time limit."""

import errno
import json
import socket
import time
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, and not marked so

from mae_lightning.planning.checks.finding import Finding
from mae_lightning.planning.checks.patience import within
from mae_lightning.planning.checks.ranks import Launch

MEETING = "rendezvous"
POLL_SECONDS = 0.05
FAREWELL_SECONDS = 5.0


class NoMeetingError(Exception):
    """The ranks could not meet.

    Attributes:
        finding: Why, and what to do.
    """

    def __init__(self, text: str, cure: str) -> None:
        super().__init__(text)
        self.finding = Finding(MEETING, False, text, cure)


class Meeting:
    """The ranks of a launch, met at rank 0's store within a time limit.

    Args:
        launch: This process.
        timeout: Seconds to wait for the others.

    Attributes:
        present: Ranks that came in time; the same on all that did.
        clock: This machine's time when all had come.
        store: Where they exchange.

    Raises:
        NoMeetingError: The port is taken, or rank 0 is not there, or this rank came too late.
    """

    def __init__(self, launch: Launch, timeout: float) -> None:
        self.launch, self.timeout = launch, timeout
        self._server = open_store(launch, timeout)
        self.store = PrefixStore("doctor", self._server)
        self.store.set_timeout(timedelta(seconds=timeout))
        self.store.set(f"here/{launch.rank}", "")
        if launch.rank == 0:
            self.present = self._wait_for(range(launch.world_size), "here")
            self.store.set("present", json.dumps(self.present))
        else:
            # Rank 0 may have begun to wait a little later.
            self.present = json.loads(self._answer("present", self.timeout + FAREWELL_SECONDS))
        self.clock = time.time()
        if launch.rank not in self.present:
            raise NoMeetingError(
                f"came when rank 0 had waited {timeout:g} s", "start all ranks at once, or give --timeout more"
            )

    def gather(self, subject: str, text: str) -> dict[int, str]:
        """What every rank says on a subject, if in time, on rank 0; on the others their own word alone."""
        self.store.set(f"{subject}/{self.launch.rank}", text)
        if self.launch.rank:
            return {self.launch.rank: text}
        return {rank: self.store.get(f"{subject}/{rank}").decode() for rank in self._wait_for(self.present, subject)}

    def agree(self, value: bool, subject: str, patience: float | None = None) -> bool:
        """Rank 0's word on something, on every rank; False where it says none in time."""
        if self.launch.rank == 0:
            self.store.set(subject, "yes" if value else "no")
            return value
        try:
            return self._answer(subject, patience or self.timeout + FAREWELL_SECONDS) == b"yes"
        except NoMeetingError:
            return False

    def part(self) -> None:
        """Rank 0 stays until the others have heard it: its store ends with it."""
        self.store.set(f"left/{self.launch.rank}", "")
        if self.launch.rank == 0:
            self._wait_for(self.present, "left", FAREWELL_SECONDS)

    def _wait_for(self, ranks: Sequence[int], subject: str, patience: float | None = None) -> list[int]:
        """The ranks that said something in time."""
        end = time.monotonic() + (patience or self.timeout)
        waiting = set(ranks)
        while True:
            waiting = {rank for rank in waiting if not self.store.check([f"{subject}/{rank}"])}
            if not waiting or time.monotonic() > end:
                return sorted(set(ranks) - waiting)
            time.sleep(POLL_SECONDS)

    def _answer(self, key: str, seconds: float) -> bytes:
        try:
            self.store.wait([key], timedelta(seconds=seconds))
            return bytes(self.store.get(key))
        except RuntimeError as error:
            raise NoMeetingError(
                f"rank 0 at {self.launch.address}:{self.launch.port} went silent", "look into rank 0's output"
            ) from error


def open_store(launch: Launch, timeout: float) -> TCPStore:
    """The store at the launch's address: rank 0 holds it, unless the launcher does.

    Raises:
        NoMeetingError: The port is taken, or nobody of ours answers.
    """
    if launch.rank == 0 and not launch.has_store:
        return _held_store(launch, timeout)
    end = time.monotonic() + timeout
    _knock(launch, end)
    limit = max(1.0, end - time.monotonic())
    try:
        return within(limit, lambda: TCPStore(launch.address, launch.port, None, False, timedelta(seconds=timeout)))
    except (TimeoutError, RuntimeError) as error:
        raise NoMeetingError(
            f"what answers at {launch.address}:{launch.port} is not rank 0: another program has the port",
            "set MASTER_PORT, on all ranks, to a free one",
        ) from error


def _held_store(launch: Launch, timeout: float) -> TCPStore:
    """Rank 0's, which reaches it as the others do."""
    listening = _listen(launch).detach()
    limit = timedelta(seconds=timeout)

    def hold() -> TCPStore:
        return TCPStore(
            launch.address,
            launch.port,
            is_master=True,
            timeout=limit,
            wait_for_workers=False,
            master_listen_fd=listening,
        )

    try:
        return within(timeout + 1, hold)
    except (TimeoutError, RuntimeError) as error:
        raise NoMeetingError(
            f"rank 0: this machine, {socket.gethostname()}, is not reached as {launch.address}",
            "set MASTER_ADDR, on all ranks, to a name or address of rank 0's machine",
        ) from error


def _listen(launch: Launch) -> socket.socket:
    """A socket at the port, on all of this machine's addresses."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", launch.port), family=family, dualstack_ipv6=both, backlog=2048)
    except OSError as error:
        port = f"port {launch.port} of {socket.gethostname()}"
        if error.errno == errno.EADDRINUSE:
            raise NoMeetingError(
                f"rank 0: {port} is taken by another program",
                f"end it (ss -ltnp 'sport = {launch.port}' names it), or set MASTER_PORT, on all ranks, to a free one",
            ) from error
        raise NoMeetingError(
            f"rank 0: {port}: {error.strerror}", "set MASTER_PORT, on all ranks, to another"
        ) from error


def _knock(launch: Launch, end: float) -> None:
    """Returns when somebody listens at the address.

    Raises:
        NoMeetingError: Nobody does in time.
    """
    while True:
        try:
            socket.create_connection((launch.address, launch.port), max(1.0, end - time.monotonic())).close()
            return
        except OSError as error:
            reason = "the name is unknown" if isinstance(error, socket.gaierror) else error.strerror or "no answer"
        if time.monotonic() > end:
            raise NoMeetingError(
                f"rank 0 is missing: nobody listens at {launch.address}:{launch.port} ({reason})",
                "start rank 0; set MASTER_ADDR to its machine; open the port in the firewall",
            )
        time.sleep(POLL_SECONDS)
