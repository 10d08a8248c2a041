"""Options with which the user says what a foreign file does not say of itself."""

import argparse
from typing import Any

FACTS = ("num_heads", "decoder_num_heads", "made_for", "mean", "std")


def add_facts(parser: argparse.ArgumentParser) -> None:
    """Adds them to a command."""
    group = parser.add_argument_group("what a foreign file does not say")
    group.add_argument("--num-heads", type=int, metavar="N", help="attention heads, for unusual widths")
    group.add_argument("--decoder-num-heads", type=int, metavar="N", help="the decoder's, where it is not 512 wide")
    group.add_argument(
        "--made-for", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="size of its images, where not square"
    )
    group.add_argument("--mean", type=float, nargs="+", help="of each channel, pixels 0 to 1; by default ImageNet's")
    group.add_argument("--std", type=float, nargs="+", help="likewise the standard deviation")


def facts(args: argparse.Namespace) -> dict[str, Any]:
    """The facts given, as :class:`mae_lightning.weights.content.Said` takes them.

    Raises:
        ValueError: Mean and deviation do not go together.
    """
    if len(args.mean or ()) != len(args.std or ()):
        raise ValueError("--mean and --std go together, one number of each for every channel")
    given = {name: getattr(args, name) for name in FACTS}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
