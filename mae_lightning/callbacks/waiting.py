"""The wait for the loader's next batch, as callbacks see it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from lightning import Trainer

from mae_lightning.data import data_of


def around_waits(trainer: Trainer, context: Callable[[], AbstractContextManager[None]]) -> None:
    """Has the process be in a context, too, whenever it waits for a batch, of training or of anything else.

    Args:
        trainer: Nothing is done where its data are not ours.
        context: Made anew for each wait.
    """
    data = data_of(trainer)
    if data is None:
        return
    others = data.waiting

    @contextmanager
    def waiting() -> Iterator[None]:
        with others(), context():
            yield

    data.waiting = waiting
