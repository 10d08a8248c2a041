"""``report`` on trials of which some have no place in a table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mae_lightning.commands.stages import write_json

RATIO = "pretrain.model.init_args.mask_ratio"


def make_trial(folder: Path, study: str, parameters: dict[str, str]) -> None:
    record: dict[str, Any] = {"study": study, "seed": 0, "parameters": parameters, "code": "0.1.0", "finished": True}
    record |= {"metrics": {"trial/finetune_accuracy": 0.5}, "draws": {}, "stages": {"finetune": {"seconds": 1.0}}}
    write_json(folder / "trial.json", record)


def test_what_has_no_place_is_left_out_and_said(cli: Callable, here: Path) -> None:
    make_trial(here / "runs/a", "quickstart/figure_5", {RATIO: "0.5"})
    make_trial(here / "runs/b", "quickstart/figure_55", {RATIO: "0.5"})
    make_trial(here / "runs/c", "quickstart/figure_5", {})
    make_trial(here / "runs/d", "quickstart/figure_5", {RATIO: "***"})
    outcome = cli("report", "runs")
    assert outcome.code == 0, outcome.err
    left_out = [line for line in outcome.out.splitlines() if line.startswith("left out: ")]
    assert left_out[0].startswith("left out: runs/b: there is no study 'figure_55'; there are table_1a, ")
    assert left_out[1:] == [
        "left out: runs/c belongs to quickstart/figure_5 and does not set pretrain.model.mask_ratio",
        "left out: runs/d hides its value of pretrain.model.mask_ratio; run its trial again, which writes it down",
    ]
    assert "| 50%" in outcome.out


@pytest.mark.parametrize("content", ["{", "[]", '{"finished": true}'])
def test_a_damaged_record_is_one_line(cli: Callable, here: Path, content: str) -> None:
    make_trial(here / "runs/a", "quickstart/figure_5", {RATIO: "0.5"})
    (here / "runs/a/trial.json").write_text(content)
    outcome = cli("report", "runs")
    said = "error: runs/a/trial.json is damaged; take it away, and its trial's command writes it anew\n"
    assert (outcome.code, outcome.err) == (2, said)
