"""Logging that fails is said once, and the run goes on."""

import logging
from types import TracebackType

from mae_lightning.secrets import redact

log = logging.getLogger(__name__)


class Unfailing:
    """A context in which what fails is said the first time and then left.

    Args:
        what: What is written in it, for the warning.
        errors: Which errors are left; others are bugs.
    """

    def __init__(self, what: str, errors: type[Exception] = OSError) -> None:
        self.what, self.errors = what, errors
        self._is_said = False

    def __enter__(self) -> None:
        """Begins."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Leaves an error, unless it is a bug or ends the program."""
        if not isinstance(error, self.errors):
            return False
        if not self._is_said:
            log.warning("%s failed, and the run goes on without: %s", self.what, reason(error))
        self._is_said = True
        return True


def reason(error: BaseException) -> str:
    """The first line of an error, without secrets."""
    return str(redact((str(error) or type(error).__name__).splitlines()[0]))
