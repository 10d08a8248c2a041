"""What the README shows is run."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_a_sampler_of_ones_own(program: Callable, here: Path, small: tuple[str, ...]) -> None:
    (code,) = re.findall(r"```python\n# centre\.py\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 20
    (here / "centre.py").write_text(code)
    (command,) = re.findall(r"^python -m mae_lightning (--allow-import centre .*)$", README, re.MULTILINE)
    outcome = program(*shlex.split(command), *small[1:])
    assert outcome.code == 0, outcome.err
    assert "CentreMasking" in outcome.out


def test_the_two_commands_are_there() -> None:
    assert "pip install . && python -m mae_lightning fit --config configs/recipes/quickstart/pretrain.yaml" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_every_file_that_it_names_exists() -> None:
    root = Path(__file__).parents[2]
    named = re.findall(
        r"`((?:data|models|optim|tasks|callbacks|tracking|pictures|evaluation)/[a-z_]*(?:\.py)?)`", README
    )
    assert len(named) > 10
    missing = [name for name in named if not (root / "mae_lightning" / name).exists()]
    missing += [name for name in re.findall(r"`(configs/[a-z_/]+)`", README) if not (root / name).exists()]
    assert missing == []
