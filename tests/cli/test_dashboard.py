"""The workspace's specification, made without a login; W&B's library for it is an extra."""

import json
import sys

import pytest


def test_missing_library_is_one_line(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    outcome = cli("dashboard", "--offline")
    assert outcome.code == 2
    assert outcome.err.strip().endswith("pip install 'mae-lightning[dashboards]'")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # wandb-workspaces 0.4, for W&B to change
def test_specification_without_a_login(cli, here, monkeypatch):
    pytest.importorskip("wandb_workspaces", reason="the extra 'dashboards' is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = cli("dashboard", "--project=p", "--sweep=sweeps/quickstart/figure_5", "--out=d/dashboard.json")
    assert outcome.code == 0, outcome.err
    assert "nothing was sent. To send it: wandb login" in outcome.out
    text = (here / "d/dashboard.json").read_text()
    sections = json.loads(text)["spec"]["section"]["panelBankConfig"]["sections"]
    titles = ["Losses", "Evaluation", "Optimisation", "Throughput", "Reconstructions", "Sweeps"]
    assert [section["name"] for section in sections] == titles
    for name in ("train/gradient_norm", "pretrain/train/loss", "train/data_wait_share", "val/reconstructions"):
        assert f'"{name}"' in text
    assert '"config:pretrain/model/init_args/mask_ratio.value"' in text
    assert "trial/finetune_accuracy" in text
