"""The commands that the README shows, in their order."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAM = ("python", "-m", "mae_lightning")
_CODE = re.compile(r"```(\w*)\n(.*?)```|`([^`]+)`", re.DOTALL)
_INLINE = re.compile(r"python -m mae_lightning |mae-lightning |fit --config |torchrun --nnodes|srun ")
_SCHEMATIC = re.compile(r"\.\.\. |\[--|\bRECIPE\b|install \[")


def lines() -> Iterator[str]:
    """Every line of a block that is for a shell, and every command within the text."""
    for language, block, inline in _CODE.findall(README):
        if language == "bash":
            yield from (line.split("  # ")[0].strip() for line in block.splitlines() if line.strip())
        elif _INLINE.match(inline):
            yield " ".join(inline.split())


def calls() -> list[list[str]]:
    """What follows the program's name in each command that starts it on its own; without those that have gaps."""
    found = []
    for line in lines():
        if _SCHEMATIC.search(line):
            continue
        words = shlex.split(line.split(" && ")[-1])
        if tuple(words[:3]) == PROGRAM:
            found.append(words[3:])
        elif words[0] == "mae-lightning":
            found.append(words[1:])
        elif words[0] == "fit":
            found.append(words)
    return found


def code_named(name: str) -> str:
    """The block that begins with a file's name."""
    (code,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", README, re.DOTALL)
    return str(code)
