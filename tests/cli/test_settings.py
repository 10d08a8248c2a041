"""The second reading of configs and command line, which finds out what does not fit."""

from pathlib import Path

import pytest

from mae_lightning.cli.settings import merged, read_settings


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "model/head.yaml").write_text("{class_path: Head, init_args: {width: 3}}")
    (tmp_path / "model/m.yaml").write_text("{class_path: M, init_args: {head: head.yaml, ratio: 0.75}}")
    (tmp_path / "recipes/r.yaml").write_text("model: ../model/m.yaml\ntrainer: {max_epochs: 3}\n")
    (tmp_path / "over.yaml").write_text("model: {init_args: {ratio: 0.5}}\ntrainer: {callbacks+: [A]}\n")
    return tmp_path


def test_included_files_are_found_beside_the_file_that_names_them(files: Path) -> None:
    settings = read_settings(["--config=recipes/r.yaml"])
    head = {"class_path": "Head", "init_args": {"width": 3}}
    assert settings.tree == {
        "model": {"class_path": "M", "init_args": {"head": head, "ratio": 0.75}},
        "trainer": {"max_epochs": 3},
    }


def test_later_files_and_flags_win_and_origins_are_kept(files: Path) -> None:
    flags = ["--trainer.max_epochs", "5", "--trainer.callbacks+=B", "--model.head.init_args.width=4"]
    settings = read_settings(["--config=recipes/r.yaml", "--config=over.yaml", *flags])
    assert settings.tree["model"]["init_args"]["ratio"] == 0.5
    assert settings.tree["trainer"] == {"max_epochs": "5", "callbacks": ["A", "B"]}
    assert settings.origin("model.init_args.ratio") == "over.yaml"
    assert settings.origin("model.init_args.head.class_path") == "recipes/r.yaml"
    assert settings.origin("model.init_args.head.init_args.width") == ""
    assert settings.origin("trainer.max_epochs") == ""


def test_what_replaces_a_part_replaces_its_origins(files: Path) -> None:
    settings = read_settings(["--config=recipes/r.yaml", "--model=Other"])
    assert settings.origin("model.class_path") == settings.origin("model.init_args.ratio") == ""


def test_another_class_takes_new_arguments() -> None:
    old = {"class_path": "A", "init_args": {"x": 1}}
    assert merged(old, {"class_path": "B", "init_args": {"y": 2}}) == {"class_path": "B", "init_args": {"y": 2}}
    assert merged(old, {"init_args": {"y": 2}}) == {"class_path": "A", "init_args": {"x": 1, "y": 2}}
    assert merged(old, "B") == "B"


def test_arguments_without_a_class_are_the_last_items() -> None:
    with_argument = {"class_path": "B", "init_args": {"x": 1}}
    assert merged(["A", "B"], {"x": 1}) == ["A", with_argument]
    assert merged(["A", {"class_path": "B"}], {"init_args": {"x": 1}}) == ["A", with_argument]
    assert merged([with_argument], {"y": 2}) == [{"class_path": "B", "init_args": {"x": 1, "y": 2}}]
    assert merged(["A"], {"class_path": "B"}) == {"class_path": "B"}


def test_flags_are_mappings_lists_or_as_typed(files: Path) -> None:
    settings = read_settings(["--a={b: 1}", "--c=[1, 2]", "--d=off", "--e", "--f=x: [", "--help"])
    assert settings.tree == {"a": {"b": 1}, "c": [1, 2], "d": "off", "e": "true", "f": "x: ["}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainer: {max_epochs: 3\nmodel: x\n", r"^bad.yaml, line 2, column 6: .*; this is not valid YAML$"),
        ("a: b: c\n", r"^bad.yaml, line 1, column 5: mapping values are not allowed here; this is not valid YAML$"),
        ("[1, 2]\n", r"^bad.yaml: expected settings such as 'trainer:', not '\[1, 2\]'$"),
        ("", r"^bad.yaml: expected settings such as 'trainer:', not 'None'$"),
    ],
)
def test_a_broken_config_is_named_with_the_place(files: Path, content: str, message: str) -> None:
    (files / "bad.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_settings(["--config=bad.yaml"])
