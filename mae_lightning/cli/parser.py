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


FROM_DATA = ("image_size", "num_channels", "mean", "std", "num_classes", "class_names", "global_batch_size", "seed")
"""What the data module owns; each is given to the model if the model's class takes it."""


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

    def link_parts(self) -> None:
        """Gives the seed to the data, and to the model what the data owns."""
        self.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_whole_number)
        for name in FROM_DATA:
            self.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

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


def _whole_number(seed: bool | int) -> int:
    """What LightningCLI takes a seed for; true and false ask for the default or none."""
    return int(seed)
