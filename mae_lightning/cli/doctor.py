"""``doctor``: looks at everything a long run needs, on every rank, within a minute."""

import argparse
import math
import os
import sys

from mae_lightning.cli.arguments import add_settings, config_names

SECONDS = 20.0
"""Two of its waits in vain, and it is still done within a minute."""

EPILOG = """\
Takes what follows fit: configs, then settings such as --trainer.devices=8. Alone it looks at this machine; started on
every rank, as the run will be, it also looks whether they meet, sum tensors and have the same versions and data:

  mae-lightning doctor --config imagenet/pretrain_base
  torchrun --nnodes=4 --nproc-per-node=8 ... -m mae_lightning doctor --config imagenet/pretrain_base
  srun mae-lightning doctor --config imagenet/pretrain_base

Rank 0 prints one line a check: ok, or FAIL with the ranks and what to do. The exit code is 1 if anything failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.usage = "%(prog)s --config RECIPE [--config OVERLAY] [--timeout SECONDS] [--key=value]"
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    add_settings(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=SECONDS,
        metavar="SECONDS",
        help=f"for each wait: for the other ranks, the network, a sum over all (default: {SECONDS:g})",
    )


def run(args: argparse.Namespace) -> int:
    """Examines this rank, meets the others, and on rank 0 prints what was found."""
    if not config_names(args.settings):
        raise ValueError("nothing to look at: give --config RECIPE")
    if not 0 < args.timeout < math.inf:
        raise ValueError(f"--timeout {args.timeout:g}: must be above 0 and have an end")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its retries are told in one line of ours
    from mae_lightning.cli.configured import read_configured
    from mae_lightning.cli.examination import Examination, consult
    from mae_lightning.cli.imports import ImportPolicy
    from mae_lightning.cli.quiet import hush
    from mae_lightning.planning.checks.patience import is_any_left_behind
    from mae_lightning.planning.checks.ranks import read_launch

    hush()
    configured = read_configured(args.settings, ImportPolicy(args.allowed_imports))
    is_well = consult(Examination(args.settings, configured, read_launch(), args.timeout))
    if is_any_left_behind():  # its threads would keep the process from ending
        sys.stdout.flush()
        os._exit(int(not is_well))
    return int(not is_well)
