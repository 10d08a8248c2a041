"""LightningCLI's parser, with errors to be caught instead of printed and a help page that can be read."""

import argparse
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

DESCRIPTION = """\
Settings come from configs and from the command line, in their order, the command line last:

  mae-lightning {command} --config quickstart/pretrain --model.init_args.mask_ratio=0.6 --trainer.max_epochs=50

A config is a file, or a shipped one by its name; mae-lightning configs lists them. To see more:

  mae-lightning {command} --model.help mae_lightning.tasks.MAEPretraining    what a model takes
  mae-lightning {command} --data.help mae_lightning.data.ShardDataModule     what the data takes
  mae-lightning {command} --config quickstart/pretrain --print_config        every setting and its value"""


TITLES = {
    "model": "Model",
    "data": "Data",
    "run": "Run: config.yaml, metrics.csv, checkpoints and pictures lie in dir/name",
    "trainer": "Trainer, as Lightning documents it",
}
"""The headings of the help page."""


class ParseError(Exception):
    """The arguments or configs do not fit; the message is jsonargparse's own, of many lines."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's, which leaves the lines of the description as they are."""


def parser_options(command: str) -> dict[str, Any]:
    """How the parser of a command introduces itself, and that options are not abbreviated."""
    return {
        "prog": f"mae-lightning {command}",
        "usage": "%(prog)s --config RECIPE [--config OVERLAY] [--key=value]",
        "description": DESCRIPTION.format(command=command),
        "formatter_class": HelpFormatter,
        "allow_abbrev": False,
    }


class Parser(LightningArgumentParser):
    """Raises where the original prints a page of usage and exits."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises what is wrong.

        Raises:
            ParseError: Always.
        """
        raise ParseError(message) from ex

    def format_help(self, formatter: Any = None) -> str:
        """The help page: the run and what it is made of first, the trainer's many options last, links not at all."""
        groups, named = self._action_groups, self.groups or {}
        for name, title in TITLES.items():
            if name in named:
                named[name].title = title
        shown = [group for group in groups if group is not getattr(self, "_links_group", None)]
        self._action_groups = sorted(shown, key=lambda group: group is named.get("trainer"))
        try:
            return str(super().format_help())
        finally:
            self._action_groups = groups
