"""The commands beside training.

To add one, write a module with ``add_arguments(parser)`` and ``run(args) -> int`` on plain argparse, and name it in
`COMMANDS`. It is imported only when it runs, so it may import what it likes; the table itself imports nothing.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

TRAINING = {
    "fit": "Train a model, or go on with a run that was stopped",
    "validate": "Compute a run's figures on its held-out images",
    "test": "Compute the final figures, once, on the test images",
}
"""What LightningCLI runs, with one line on each."""


@dataclass(frozen=True)
class Command:
    """One row of the table of commands.

    Attributes:
        module: Where it is implemented; imported when the command runs.
        summary: One line for ``--help``.
        group: The heading it stands under in ``--help``.
        takes_settings: Whether options that its parser does not know are settings, given to it as ``args.settings``.
    """

    module: str
    summary: str
    group: str
    takes_settings: bool = False


COMMANDS = {
    "evaluate": Command(
        "mae_lightning.commands.evaluate", "Judge frozen encoders: k-NN, few-shot, linear and attentive probe", "Models"
    ),
    "predict": Command(
        "mae_lightning.commands.predict", "Write class probabilities or features of images to a table", "Models"
    ),
    "inspect": Command(
        "mae_lightning.commands.inspect", "Say what a checkpoint is and what can be done with it", "Models"
    ),
    "figures": Command(
        "mae_lightning.commands.figures", "Draw the papers' figures of a checkpoint: see what it learned", "Models"
    ),
    "convert": Command("mae_lightning.commands.convert", "Write weights in another format, checked", "Models"),
    "compare": Command(
        "mae_lightning.commands.compare", "Compare two sets of runs with the same seeds, with an interval", "Models"
    ),
    "trial": Command(
        "mae_lightning.commands.trial",
        "Pretrain, fine-tune or probe, and evaluate, as one run",
        "Ablations",
        takes_settings=True,
    ),
    "sweep": Command(
        "mae_lightning.commands.sweep",
        "Run a W&B sweep file here, without a server",
        "Ablations",
        takes_settings=True,
    ),
    "report": Command(
        "mae_lightning.commands.report", "Set finished trials beside the papers' tables and curves", "Ablations"
    ),
    "dashboard": Command("mae_lightning.commands.dashboard", "Make a W&B workspace of a project", "Ablations"),
    "pack": Command("mae_lightning.commands.pack", "Make shards of images, wherever they lie", "Data"),
    "unpack": Command("mae_lightning.commands.unpack", "Make files of shards again", "Data"),
    "index": Command("mae_lightning.commands.index", "Write the manifest of shards made elsewhere", "Data"),
    "verify": Command("mae_lightning.commands.verify", "Check shards against their manifest, every byte", "Data"),
    "bench": Command("mae_lightning.cli.bench", "Measure how fast data and training steps are", "Data"),
    "doctor": Command(
        "mae_lightning.cli.doctor",
        "Look at everything that a long run needs, on every rank, within a minute",
        "Before a long run",
        takes_settings=True,
    ),
    "plan": Command(
        "mae_lightning.cli.plan",
        "Say what a run needs and costs on given GPUs, before there are any",
        "Before a long run",
        takes_settings=True,
    ),
    "configs": Command("mae_lightning.commands.configs", "List the shipped configs, print or copy one", "Configs"),
}


def help_text() -> str:
    """What ``--help`` prints."""
    groups: dict[str, dict[str, str]] = {"Training": TRAINING}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, {})[name] = command.summary
    width = max(len(name) for group in groups.values() for name in group)
    sections = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {summary}" for name, summary in group.items())])
        for title, group in groups.items()
    ]
    return "\n\n".join([_HEAD, *sections, _FOOT])


_HEAD = """\
usage: mae-lightning COMMAND [options]

Masked autoencoders for vision transformers, on PyTorch Lightning."""

_FOOT = """\
Options:
  --help, --version
  --allow-import PACKAGE   let configs name classes of this package of yours; may be repeated

Start with:                  mae-lightning fit --config quickstart/pretrain
Options of a command:        mae-lightning COMMAND --help"""


class OneLineParser(argparse.ArgumentParser):
    """argparse, whose errors are one line instead of a page of usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises the message for the program to print.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self.prog.split()[-1]}: {message}; see {self.prog} --help")


def run_command(name: str, arguments: list[str], allowed_imports: Sequence[str] = ()) -> int:
    """Runs a command of the table and returns the process's exit code.

    Args:
        name: Of the command.
        arguments: What follows it on the command line.
        allowed_imports: Packages of the user's that configs may name; commands find them as ``args.allowed_imports``.
    """
    command = COMMANDS[name]
    module: Any = import_module(command.module)
    parser = OneLineParser(prog=f"mae-lightning {name}", description=command.summary)
    module.add_arguments(parser)
    args, settings = (
        parser.parse_known_args(arguments) if command.takes_settings else (parser.parse_args(arguments), [])
    )
    args.settings, args.allowed_imports = settings, allowed_imports
    return int(module.run(args))
