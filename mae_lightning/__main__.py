"""``python -m mae_lightning`` and ``mae-lightning``: one program, whose light parts answer without importing torch."""

import sys
from collections.abc import Sequence

from mae_lightning import __version__
from mae_lightning.cli.arguments import take_allowed_imports
from mae_lightning.cli.errors import exit_code
from mae_lightning.commands import COMMANDS, TRAINING, help_text, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: What follows the program's name; by default the process's own.

    Returns:
        0 when all went well, 2 after a mistake of the user's, 75 when a run was told to go and saved, 124 when a
        time limit of a run ran out, 130 after an interruption.
    """
    return exit_code(lambda: _dispatch(list(sys.argv[1:] if arguments is None else arguments)))


def _dispatch(arguments: list[str]) -> int:
    arguments, allowed_imports = take_allowed_imports(arguments)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"mae-lightning {__version__}")
        return 0
    if name in TRAINING:
        from mae_lightning.cli.training import run_training

        return run_training(name, rest, allowed_imports)
    if name in COMMANDS:
        return run_command(name, rest, allowed_imports)
    raise ValueError(unknown_command(name))


def unknown_command(name: str) -> str:
    """What to say to a command that is none."""
    from mae_lightning.commands.spelling import nearest

    return f"{name!r} is not a command{nearest(name, [*TRAINING, *COMMANDS], 'mae-lightning --help lists them')}"


if __name__ == "__main__":
    sys.exit(main())
