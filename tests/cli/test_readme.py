"""What the README shows is there, and is understood."""

import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from readme_commands import README, ROOT, calls, code_named

from mae_lightning.cli.arguments import take_allowed_imports
from mae_lightning.cli.configured import read_configured
from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.commands import COMMANDS, OneLineParser


def test_a_sampler_of_ones_own(program: Callable, here: Path, small: tuple[str, ...]) -> None:
    code = code_named("centre.py")
    assert len(code.splitlines()) <= 20
    (here / "centre.py").write_text(code)
    (command,) = re.findall(r"^python -m mae_lightning (--allow-import centre .*)$", README, re.MULTILINE)
    outcome = program(*shlex.split(command), *small[1:])
    assert outcome.code == 0, outcome.err
    assert "CentreMasking" in outcome.out


def test_the_two_commands_are_there() -> None:
    assert "pip install . && python -m mae_lightning fit --config configs/recipes/quickstart/pretrain.yaml" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_every_command_is_found() -> None:
    shown = set(re.findall(r"(?:python -m mae_lightning|mae-lightning) (\w+)", README)) & {*COMMANDS, "fit"}
    assert len(calls()) > 25
    assert {name for call in calls() for name in call} >= shown - {"test"}


@pytest.mark.parametrize("call", calls(), ids=" ".join)
def test_every_command_is_understood(call: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(here))
    (here / "centre.py").write_text(code_named("centre.py"))
    (name, *words), allowed = take_allowed_imports(call)
    if name == "fit":
        read_configured(words, ImportPolicy(allowed))
        return
    parser = OneLineParser(prog=f"mae-lightning {name}")
    import_module(COMMANDS[name].module).add_arguments(parser)  # type: ignore[attr-defined]
    (parser.parse_known_args if COMMANDS[name].takes_settings else parser.parse_args)(words)


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(
        r"`((?:data|models|optim|tasks|callbacks|tracking|pictures|evaluation)/[a-z_]*(?:\.py)?)`", README
    )
    assert len(named) > 10
    missing = [name for name in named if not (ROOT / "mae_lightning" / name).exists()]
    missing += [name for name in re.findall(r"`(configs/[a-z_/]+)`", README) if not (ROOT / name).exists()]
    assert missing == []
