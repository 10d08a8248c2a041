"""`bench step` from the command line: the table, the figures that it keeps, and mistakes in one line."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mae_lightning.cli.bench_step import configured_model
from mae_lightning.models import TransformerDecoder, step_flops
from mae_lightning.planning.benchmark import rates
from mae_lightning.planning.benchmark.apart import Apart
from mae_lightning.planning.benchmark.contender import PARTS


def test_against_hugging_face(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIDES": 64, "COPIED": 2**16}.items():
        monkeypatch.setitem(getattr(rates, name), "cpu", value)
    monkeypatch.setattr("mae_lightning.planning.benchmark.contender.TURN_SECONDS", 0.0)
    monkeypatch.setattr("mae_lightning.planning.benchmark.comparisons.PEER_TITLES", {"huggingface": "Hugging Face"})
    monkeypatch.setattr("mae_lightning.planning.benchmark.figures.peak_of_process", lambda candidate, batch_size: 2**30)
    peers: list[str] = []
    start = Apart.__init__
    monkeypatch.setattr(Apart, "__init__", lambda self, one: peers.append(one.title) or start(self, one))
    small = partial(TransformerDecoder, dim=16, num_heads=2)
    monkeypatch.setattr("mae_lightning.planning.benchmark.comparisons.TransformerDecoder", small)
    where = ["--device=cpu", "--encoder=nano/4", "--image-size=16", "--batch-sizes=4", "--precision=fp32"]
    outcome = cli("bench", "step", *where, "--compare", "--rounds=7", "--out=kept/step.json", "--out=kept/step.png")
    assert outcome.code == 0, outcome.err
    assert peers == ["Hugging Face, fp32", "Hugging Face, bf16"]
    figures = json.loads(Path("kept/step.json").read_text())
    assert {"device", "threads", "versions", "date"} <= figures.keys()
    assert {"torch", "transformers", "mae_lightning"} <= figures["versions"].keys()
    (table,) = figures["tables"]
    titles = ["ours, fp32", "Hugging Face, fp32", "Hugging Face, bf16"]
    assert [row["title"] for row in table["rows"]] == titles
    assert (table["model"], table["batch_size"], table["rounds"]) == ("nano/4", 4, 7)
    ours, theirs, _ = table["rows"]
    assert ours["peak_bytes"] == 2**30
    assert list(ours["parts"]) == list(theirs["parts"]) == [part for part in PARTS if part != "forward"]
    assert (ours["copy_share"] is None, theirs["copy_share"] is None) == (False, True)
    ratio = table["ratios"][0]
    assert ratio["title"] == "ours, fp32 over Hugging Face, fp32"
    assert ratio["times"]["low"] <= ratio["times"]["median"] <= ratio["times"]["high"]
    assert sum(line.startswith("  ours, fp32  ") for line in outcome.out.splitlines()) == 2
    assert Path("kept/step.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_of_a_config() -> None:
    task = configured_model(("quickstart/pretrain",), (), "meta")
    assert (task.model.image_size, task.model.num_channels) == ((28, 28), 1)
    assert step_flops(task.model, task.num_kept) > 1e6


MISTAKES = {
    "step --rounds 6": "--rounds 6: an interval of 95 % takes at least 7",
    "step --config quickstart/pretrain --encoder base/16": "--config has a model of its own: leave out --encoder",
    "step --out step.txt": "--out step.txt: figures are kept as .json, pictures as .png or .svg",
    "step --compile twice": "step: argument --compile: twice is not of none, blocks, whole, graphs",
    "step --batch-sizes 8,0": "step: argument --batch-sizes: 8,0 has a size less than 1",
    "step --compare --techniques": "step: argument --techniques: not allowed with argument --compare",
    "step --device cpu --config quickstart/finetune": "bench step measures masked pretraining, and the config's model",
    "step --device cpu --encoder vast/16": "no size 'vast' in encoder 'vast/16'; the sizes are nano, tiny",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line(cli: Callable, command: str) -> None:
    outcome = cli("bench", *command.split())
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {MISTAKES[command]}")
    assert outcome.err.count("\n") == 1
