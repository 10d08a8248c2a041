"""The shipped configs: where they lie, how they are named, and the command that shows them."""

import argparse
import shutil
from pathlib import Path

from mae_lightning.commands.spelling import nearest

PACKAGE = Path(__file__).parents[1]
SUFFIX = ".yaml"


def configs_folder() -> Path:
    """The folder of the shipped configs: inside the package in a wheel, beside it in a clone.

    Raises:
        FileNotFoundError: The installation has none.
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{PACKAGE / 'configs'} is missing: this installation came without its configs")


def shipped_configs() -> dict[str, Path]:
    """Every shipped config by its name: its path below the folder, without ``recipes/`` and ``.yaml``."""
    folder = configs_folder()
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    return {path.relative_to(folder).with_suffix("").as_posix().removeprefix("recipes/"): path for path in paths}


def find_config(name: str) -> Path:
    """The file that a config's name stands for.

    Args:
        name: A path, or the name of a shipped config, where ``recipes/`` and ``.yaml`` may be left out.

    Raises:
        FileNotFoundError: There is no such file; the message has the nearest names.
    """
    for path in (Path(name), Path(name + SUFFIX)):
        if path.is_file():
            return path
    shipped = shipped_configs()
    short = Path(name).as_posix().removesuffix(SUFFIX).removeprefix("configs/").removeprefix("recipes/")
    if short in shipped:
        return shipped[short]
    hint = nearest(short, shipped, "mae-lightning configs lists the shipped ones")
    raise FileNotFoundError(f"config {name!r} is neither a file nor a shipped config{hint}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("name", nargs="?", help="print this config")
    parser.add_argument("--copy-to", type=Path, metavar="FOLDER", help="copy all of them here, to be changed at will")


def run(args: argparse.Namespace) -> int:
    """Lists, prints or copies."""
    if args.copy_to is not None and args.name is not None:
        raise ValueError(f"configs: either {args.name}, to print it, or --copy-to, which copies all of them")
    if args.copy_to is not None:
        return _copy(args.copy_to)
    if args.name is not None:
        print(find_config(args.name).read_text(), end="")
        return 0
    shipped = shipped_configs()
    width = max((len(name) for name in shipped), default=0)
    for name, path in shipped.items():
        print(f"{name:<{width}}  {_first_line(path)}".rstrip())
    return 0


def _copy(folder: Path) -> int:
    if folder.exists():
        raise ValueError(f"{folder} is already there; --copy-to makes a new folder and overwrites nothing")
    shutil.copytree(configs_folder(), folder)
    print(f"{folder}: {len(shipped_configs())} configs")
    return 0


def _first_line(path: Path) -> str:
    """The first line of a config's head."""
    with path.open() as file:
        line = file.readline()
    return line.lstrip("# ").strip() if line.startswith("#") else ""
