"""Time limits for calls that have none of their own."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
NAME = "call with a time limit"


def within(seconds: float, call: Callable[[], T]) -> T:
    """The call's result; whoever calls goes on after the time limit, and the call is left behind in a daemon thread.

    Raises:
        TimeoutError: It did not return in time.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name=NAME, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def is_any_left_behind() -> bool:
    """Whether a call still goes on whose time is over: threads under it could keep the process from ending."""
    return any(thread.name == NAME for thread in threading.enumerate())
