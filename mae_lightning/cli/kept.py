"""The option ``--out`` of the commands that measure and reckon: figures as JSON, or drawn."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DRAWN = (".png", ".svg")


def add_out(parser: argparse.ArgumentParser) -> None:
    """Adds it."""
    parser.add_argument(
        "--out",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="keep figures (.json) or picture (.png, .svg)",
    )


def check_out(paths: Sequence[Path]) -> None:
    """Refuses before the work what could not be kept after it.

    Raises:
        ValueError: A file is to be of another kind.
    """
    for path in paths:
        if path.suffix not in (".json", *DRAWN):
            raise ValueError(f"--out {path}: figures are kept as .json, pictures as {' or '.join(DRAWN)}")


def keep(path: Path, figures: Callable[[], Any], draw: Callable[[Path], None]) -> None:
    """Writes what the suffix says: the figures as plain values, or the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(figures(), indent=1) + "\n")
    else:
        draw(path)
