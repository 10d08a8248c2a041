"""What answers without torch, and the shipped configs."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mae_lightning
from mae_lightning.commands import COMMANDS, TRAINING, Command
from mae_lightning.commands.configs import configs_folder, find_config, shipped_configs

LIGHT = """
import sys
from mae_lightning.__main__ import main
code = main(sys.argv[1:])
print("heavy:", sorted({"torch", "lightning", "jsonargparse", "numpy"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["--version"], ["configs"], ["configs", "--help"], ["fitt"]], ids=" ".join
)
def test_light_commands_import_nothing_heavy(program: Callable, arguments: list[str]) -> None:
    outcome = program(*arguments, command=("-c", LIGHT))
    assert outcome.code == (2 if arguments == ["fitt"] else 0)
    assert outcome.out.splitlines()[-1] == "heavy: []"


def test_help_names_every_command_with_its_summary(cli: Callable) -> None:
    text = cli("--help").out
    for name, summary in [*TRAINING.items(), *((name, command.summary) for name, command in COMMANDS.items())]:
        assert any(line.split() == [name, *summary.split()] for line in text.splitlines()), name


def test_help_groups_commands(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "pack", Command("nowhere", "Make shards", "Data"))
    sections = {section.splitlines()[0]: section for section in cli("--help").out.split("\n\n")}
    assert "  fit " in sections["Training:"]
    assert "  pack " in sections["Data:"]
    assert "  configs " in sections["Configs:"]


def test_a_command_is_a_module_named_in_the_table(cli: Callable, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def add_arguments(p): p.add_argument('n', type=int)\ndef run(args): print(args.n * 2); return 7\n"
    (here / "doubling.py").write_text(source)
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.setitem(COMMANDS, "double", Command("doubling", "Double a number", "Arithmetic"))
    outcome = cli("double", "21")
    assert (outcome.code, outcome.out) == (7, "42\n")
    outcome = cli("double", "x")
    assert outcome.code == 2
    expected = "error: double: argument n: invalid int value: 'x'; see mae-lightning double --help\n"
    assert outcome.err == expected
    del sys.modules["doubling"]


def test_version(cli: Callable) -> None:
    assert cli("--version").out == f"mae-lightning {mae_lightning.__version__}\n"


def test_configs_lists_each_with_its_first_line(cli: Callable) -> None:
    lines = cli("configs").out.splitlines()
    assert len(lines) == len(shipped_configs())
    (quickstart,) = [line for line in lines if line.split()[0] == "quickstart/pretrain"]
    head = find_config("quickstart/pretrain").read_text().splitlines()[0]
    assert quickstart.split(maxsplit=1)[1] == head.removeprefix("# ")


def test_configs_prints_one(cli: Callable) -> None:
    assert cli("configs", "quickstart/pretrain").out == find_config("quickstart/pretrain").read_text()


def test_configs_copies_all_and_overwrites_nothing(cli: Callable, here: Path) -> None:
    assert cli("configs", "--copy-to", "mine").code == 0
    copied = {path.relative_to(here / "mine") for path in (here / "mine").rglob("*.yaml")}
    assert copied == {path.relative_to(configs_folder()) for path in shipped_configs().values()}
    outcome = cli("configs", "--copy-to", "mine")
    assert outcome.code == 2
    assert outcome.err == "error: mine is already there; --copy-to makes a new folder and overwrites nothing\n"
    outcome = cli("configs", "quickstart/pretrain", "--copy-to", "other")
    line = "configs: either quickstart/pretrain, to print it, or --copy-to, which copies all of them"
    assert (outcome.code, outcome.err) == (2, f"error: {line}\n")


@pytest.mark.parametrize(
    "name",
    [
        "quickstart/pretrain",
        "quickstart/pretrain.yaml",
        "recipes/quickstart/pretrain",
        "recipes/quickstart/pretrain.yaml",
        "configs/recipes/quickstart/pretrain.yaml",
    ],
)
def test_a_shipped_config_has_many_spellings(name: str, here: Path) -> None:
    assert find_config(name) == configs_folder() / "recipes/quickstart/pretrain.yaml"


def test_a_file_comes_before_a_shipped_config(here: Path) -> None:
    (here / "quickstart").mkdir()
    (here / "quickstart/pretrain.yaml").write_text("{}")
    assert find_config("quickstart/pretrain").resolve() == here / "quickstart/pretrain.yaml"


def test_unknown_command(cli: Callable) -> None:
    outcome = cli("confgs")
    assert (outcome.code, outcome.err) == (2, "error: 'confgs' is not a command; did you mean 'configs'?\n")
    assert cli("xyz").err == "error: 'xyz' is not a command; mae-lightning --help lists them\n"
