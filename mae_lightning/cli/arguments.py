"""What is done to the arguments before LightningCLI sees them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mae_lightning.commands.configs import find_config

CONFIG_OPTIONS = ("--config", "-c")


def take_allowed_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Takes every ``--allow-import PACKAGE`` out of the arguments, wherever it stands.

    Returns:
        The other arguments, and the packages.
    """
    rest, packages = [], []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--allow-import":
            rest.append(word)
            continue
        package = value if equals else next(words, "")
        if not all(part.isidentifier() for part in package.split(".")):
            raise ValueError(f"--allow-import needs the name of a package, such as my_masks, not {package!r}")
        packages.append(package)
    return rest, packages


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Says on a command's help page that it takes what fit takes; argparse leaves that alone, and so in its order."""
    text = "--config RECIPE, --config OVERLAY and --key=value, as often as need be; what comes later wins"
    parser.add_argument_group("what fit would be given", text)


def config_names(arguments: Sequence[str]) -> list[str]:
    """The configs as they were named, in their order."""
    words = iter(arguments)
    parts = (word.partition("=") for word in words)
    return [value if equals else next(words, "") for option, equals, value in parts if option in CONFIG_OPTIONS]


def resolve_configs(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Replaces the names of shipped configs by their files.

    Returns:
        The arguments with paths, and the paths in their order.

    Raises:
        FileNotFoundError: A config is neither a file nor a shipped one.
    """
    resolved: list[str] = []
    paths: list[Path] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in CONFIG_OPTIONS:
            resolved.append(word)
            continue
        name = value if equals else next(words, "")
        if not name:
            raise ValueError(f"{option} needs a value: a file, or a shipped config such as quickstart/pretrain")
        paths.append(find_config(name))
        resolved.append(f"--config={paths[-1]}")
    return resolved, paths
