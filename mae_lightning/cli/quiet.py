"""Silences what libraries say at every start and no user can act on."""

import logging
import os
import warnings
from pathlib import Path

import lightning

LIBRARY = str(Path(lightning.__file__).parent)

CHATTY_LOGGERS = (
    "lightning.fabric.utilities.distributed",  # the run's table says how many processes there are
    "lightning.fabric.utilities.seed",  # the seed stands in the config
)

HARMLESS_WARNINGS = (
    r".*does not have many workers which may be a bottleneck",  # the share of time spent waiting is logged instead
    r".*Checkpoint directory .* exists and is not empty",  # the run goes on in its own folder: intended, and printed
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.15: for Lightning to change
    r".*torch.distributed.nn.functional.all_gather is deprecated",  # likewise
    r".*It is recommended to use `self.log\(.*sync_dist=True",  # our figures are gathered before they are logged
    r".*Grad strides do not match bucket view strides",  # filters of one channel: two strides, one layout
    r".*`srun` command is available on your system but is not used",  # a choice, not a mistake
    r"There is a wandb run already in progress",  # a run that left a step out goes on in its process and W&B run
    r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`",  # where the first step is left out
    r".*The number of training batches .* is smaller than the logging interval",  # short demonstrations
)


def hush() -> None:
    """Applies the filters to this process, and to those that it starts where that is an environment variable."""
    os.environ.setdefault("WANDB_SILENT", "true")  # notes on its own coming versions; where the run lies, we print
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_worth_saying)
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a note is a warning, or comes from a callback or task through Lightning's ``rank_zero_info``.

    What Lightning itself notes at every start is devices found and advertisements; the run's table says what is used.
    """
    return record.levelno > logging.INFO or not record.pathname.startswith(LIBRARY)
