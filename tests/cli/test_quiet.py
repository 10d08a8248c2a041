import logging

import lightning
import pytest
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from mae_lightning.cli.quiet import hush


def say_inside_the_library(call: str) -> None:
    code = compile(call, lightning.__file__, "exec")
    exec(code, {"rank_zero_info": rank_zero_info, "logging": logging})


def test_only_the_librarys_own_notes_are_silenced(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    caplog.set_level(logging.INFO)
    hush()
    say_inside_the_library("rank_zero_info('a tip')")
    assert "a tip" not in caplog.text
    say_inside_the_library("logging.getLogger('lightning.pytorch.utilities.rank_zero').warning('a warning')")
    assert "a warning" in caplog.text
    rank_zero_info("from a callback")
    assert "from a callback" in caplog.text


def test_unknown_warnings_are_kept() -> None:
    hush()
    with pytest.warns(UserWarning, match="the data is odd"):
        rank_zero_warn("the data is odd")
