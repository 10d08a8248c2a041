"""What the options of several commands have in common: refused before the work what would fail after it."""

import argparse
from pathlib import Path
from typing import Any


def check_counts(args: argparse.Namespace, **least: int) -> None:
    """Refuses numbers that are too small.

    Args:
        args: The command's.
        least: By the options' names, the smallest that makes sense.

    Raises:
        ValueError: One is smaller.
    """
    for name, smallest in least.items():
        given = getattr(args, name)
        values = given if isinstance(given, list) else [] if given is None else [given]
        if any(value < smallest for value in values):
            shown = " ".join(map(str, values))
            raise ValueError(f"--{name.replace('_', '-')} {shown}: at least {smallest}")


def check_out(out: Path) -> None:
    """Refuses a path below a file.

    Raises:
        ValueError: It is below one.
    """
    for parent in out.parents:
        _refuse_file(out, parent)


def check_folder(out: Path) -> None:
    """Refuses for a folder what is a file, or below one.

    Raises:
        ValueError: It is.
    """
    _refuse_file(out, out)
    check_out(out)


def _refuse_file(out: Path, place: Path) -> None:
    if place.exists() and not place.is_dir():
        raise ValueError(f"--out {out}: {place} is a file, not a folder")


def device_called(name: str) -> Any:
    """The device of that name, or for ``auto`` the best there is.

    Raises:
        ValueError: There is none.
    """
    import torch

    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device
