"""Which errors are one line, and which keep their stack trace."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mae_lightning.cli import errors
from mae_lightning.cli.errors import causes, exit_code, one_line

SOURCE = """
import json, pathlib, shutil
def on_purpose():
    raise ValueError(
        "size 3 is too small;\\n"
        "4 would do"
    )
def missing():
    raise FileNotFoundError("no file x")
def opened():
    open("/nowhere/x")
def written():
    pathlib.Path("/nowhere/x").write_text("")
def found_in_a_folder():
    shutil.copytree("/nowhere", "/elsewhere")
def bug():
    return int("three")
def other_kind():
    raise TypeError("a bug")
def library():
    json.loads("{")
def wrapped():
    try:
        on_purpose()
    except ValueError as error:
        raise RuntimeError("while building") from error
class Data:
    def __len__(self): return 1
    def __getitem__(self, index): return CALL()
CALL = on_purpose
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that counts as part of the package."""
    path = tmp_path / "inside.py"
    path.write_text(SOURCE)
    monkeypatch.setattr(errors, "PACKAGE", str(tmp_path))
    spec = importlib.util.spec_from_file_location("inside", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line_of(call: Callable[[], object]) -> str | None:
    with pytest.raises(Exception) as caught:
        call()
    return one_line(caught.value)


def test_an_error_raised_again_from_what_it_led_to_has_an_end() -> None:
    first = ValueError("first")
    second = RuntimeError("second")
    first.__context__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]


def test_what_the_package_raises_on_purpose_is_one_line(module: ModuleType) -> None:
    assert line_of(module.on_purpose) == "size 3 is too small; 4 would do"
    assert line_of(module.missing) == "no file x"
    assert line_of(module.wrapped) == "size 3 is too small; 4 would do"


def test_a_file_that_is_not_there_is_one_line(module: ModuleType) -> None:
    assert line_of(module.opened) == "/nowhere/x does not exist"
    assert line_of(module.written) == "/nowhere/x: No such file or directory"
    assert line_of(module.found_in_a_folder) == "/nowhere: No such file or directory"


def test_a_file_that_a_library_alone_looks_for_is_a_bug() -> None:
    assert line_of(lambda: Path("/nowhere/x").write_text("")) is None


@pytest.mark.parametrize("name", ["bug", "other_kind", "library"])
def test_bugs_keep_their_stack_trace(module: ModuleType, name: str) -> None:
    assert line_of(getattr(module, name)) is None


def test_a_value_error_from_outside_the_package_is_a_bug() -> None:
    def call() -> None:
        raise ValueError("from a library")

    assert line_of(call) is None


@pytest.mark.parametrize(("name", "line"), [("on_purpose", "size 3 is too small; 4 would do"), ("bug", None)])
def test_errors_in_a_loaders_worker_follow_the_same_rule(module: ModuleType, name: str, line: str | None) -> None:
    module.CALL = getattr(module, name)
    loader = torch.utils.data.DataLoader(module.Data(), num_workers=1, multiprocessing_context="fork")
    assert line_of(lambda: list(loader)) == line


def test_full_memory_names_what_bounds_it() -> None:
    def call() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    line = line_of(call)
    assert line is not None
    assert line.startswith("the device's memory is full; set --data.init_args.max_micro_batch_size")


def test_an_error_is_printed_and_exits_with_2(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(module.on_purpose) == 2
    assert capsys.readouterr() == ("", "error: size 3 is too small; 4 would do\n")


LAUNCHES = {
    "torchrun": {"RANK": "3", "WORLD_SIZE": "4"},
    "SLURM": {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
    "Lightning": {"LOCAL_RANK": "3", "WORLD_SIZE": "4"},
}


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_one_of_several_processes_says_which(
    module: ModuleType, launch: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    assert exit_code(module.on_purpose) == 2
    assert capsys.readouterr().err == "error: rank 3: size 3 is too small; 4 would do\n"
    with pytest.raises(TypeError) as caught:
        exit_code(module.other_kind)
    assert caught.value.__notes__ == ["on rank 3"]


def test_one_process_of_a_launcher_is_no_rank(
    module: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert exit_code(module.on_purpose) == 2
    assert capsys.readouterr().err == "error: size 3 is too small; 4 would do\n"


def test_the_trace_can_be_asked_for(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_LIGHTNING_TRACEBACK", "1")
    with pytest.raises(ValueError, match="size 3"):
        exit_code(module.on_purpose)


def test_a_bug_is_raised(module: ModuleType) -> None:
    with pytest.raises(TypeError, match="a bug"):
        exit_code(module.other_kind)


def test_an_interruption_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> int:
        raise KeyboardInterrupt

    assert exit_code(call) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (None, 0), (3, 3)])
def test_exits_of_help_pages_are_codes(code: int | None, expected: int) -> None:
    assert exit_code(lambda: sys.exit(code)) == expected
