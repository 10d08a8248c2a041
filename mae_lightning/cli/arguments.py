"""What is done to the arguments before LightningCLI sees them."""

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
