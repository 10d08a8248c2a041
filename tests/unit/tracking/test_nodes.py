"""One W&B run of several nodes: what each of them tells W&B, and who names the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.tracking import build_loggers, watch_node
from mae_lightning.tracking.loggers import _stable_id, node_settings


def test_the_first_node_has_the_figures() -> None:
    first, second = node_settings(0), node_settings(1)
    assert (first.mode, first.x_primary, first.x_label) == ("shared", True, "node 0")
    assert (second.mode, second.x_primary, second.x_label) == ("shared", False, "node 1")
    assert not second.x_update_finish_state


def test_another_node_joins_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    run = SimpleNamespace(finish=lambda: None)
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.update(arguments) or run)
    watch_node("abc", "project", 3)()
    assert (given["id"], given["project"], given["settings"].x_label) == ("abc", "project", "node 3")


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_only_online(mode: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs Weights & Biases online"):
        build_loggers(tmp_path, "run", "project", mode, node_metrics=True)


def test_the_first_process_alone_names_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert _stable_id(tmp_path) == "unused"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    name = _stable_id(tmp_path)
    assert len(name) == 12
    assert _stable_id(tmp_path) == name
