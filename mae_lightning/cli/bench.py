"""``bench``: how fast data and steps are, and where the time goes."""

import argparse
from typing import Any

from mae_lightning.cli import bench_data, bench_step

SUBJECTS: dict[str, tuple[Any, str]] = {
    "data": (bench_data, "the training data's path into a batch"),
    "step": (bench_step, "the training step, against the device's own rates and against others"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what can be measured, each with its options."""
    what = parser.add_subparsers(dest="what", required=True, metavar="{data,step}", title="what to measure")
    for name, (module, summary) in SUBJECTS.items():
        module.add_arguments(what.add_parser(name, help=summary, description=f"Measure {summary}"))


def run(args: argparse.Namespace) -> int:
    """Measures, and prints a table."""
    module, _ = SUBJECTS[args.what]
    return int(module.run(args))
