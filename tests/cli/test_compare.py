"""``compare`` on run folders of known figures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Outcome

Cli = Callable[..., Outcome]


def make_run(folder: Path, seed: int, accuracies: list[float], epochs: int | None = 2, steps: int = -1) -> str:
    """The folder of a run that logged these accuracies, one an epoch of ten steps."""
    (folder / "checkpoints").mkdir(parents=True)
    config = {"seed_everything": seed, "trainer": {"max_epochs": epochs, "max_steps": steps}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [f"{epoch},,{value}\n{epoch},0.5," for epoch, value in enumerate(accuracies)]
    (folder / "metrics.csv").write_text("step,train/loss,val/accuracy\n" + "\n".join(rows) + "\n")
    progress = {"epoch_progress": {"current": {"processed": len(accuracies)}}}
    content = {"loops": {"fit_loop": progress}, "global_step": 10 * len(accuracies)}
    torch.save(content, folder / "checkpoints/last.ckpt")
    return str(folder)


@pytest.fixture
def arms(here: Path) -> tuple[list[str], list[str]]:
    first = [make_run(here / f"tuned-{seed}", seed, [0.1, value]) for seed, value in enumerate((0.81, 0.84, 0.86))]
    second = [make_run(here / f"scratch-{seed}", seed, [0.9, value]) for seed, value in enumerate((0.70, 0.72, 0.76))]
    return first, second


def test_runs_are_paired_by_seed_at_their_last_epoch(cli: Cli, arms: tuple[list[str], list[str]]) -> None:
    first, second = arms
    outcome = cli("compare", *first, "--with", *reversed(second), "--json", "out.json")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.split("\n")
    assert lines[3].split() == ["seed", "tuned", "scratch", "difference"]
    assert lines[4].split() == ["0", "0.8100", "0.7000", "+0.1100"]
    assert "mean        0.8367    0.7267" in outcome.out
    assert "difference +0.1100, 95 % interval +0.0852 to +0.1348, 3 pairs: the first is above the second" in outcome.out
    assert not json.loads(Path("out.json").read_text())["tie"]


@pytest.mark.parametrize(("epochs", "steps"), [(9, 20), (None, 20), (2, 90), (None, -1)])
def test_a_run_is_complete_after_its_last_epoch_or_its_last_step(
    cli: Cli, here: Path, epochs: int | None, steps: int
) -> None:
    runs = [make_run(here / name, 0, [0.1, 0.5], epochs, steps) for name in "ab"]
    outcome = cli("compare", runs[0], "--with", runs[1])
    assert outcome.code == 0, outcome.err


def test_figures_go_into_a_folder_that_is_made_or_is_refused(
    cli: Cli, arms: tuple[list[str], list[str]], here: Path
) -> None:
    words = ("compare", arms[0][0], "--with", arms[1][0], "--json")
    assert cli(*words, "new/out.json").code == 0
    assert json.loads(Path("new/out.json").read_text())["seeds"] == [0]
    (here / "file").touch()
    outcome = cli(*words, "file/out.json")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", "error: file: File exists\n")


def test_a_tie_is_called_a_tie(cli: Cli, arms: tuple[list[str], list[str]], here: Path) -> None:
    close = [make_run(here / f"close-{seed}", seed, [0, value]) for seed, value in enumerate((0.82, 0.82, 0.87))]
    outcome = cli("compare", *arms[0], "--with", *close)
    assert outcome.out.endswith("3 pairs: a tie: the interval holds 0\n")
    assert "tells nothing of chance" in cli("compare", arms[0][0], "--with", close[0]).out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "nowhere is no run's folder: it has no config.yaml"),
        ("metric", "tuned-0 has no val/knn; it has train/loss, val/accuracy"),
        ("pairs", "seeds [0, 1, 2] on one side and [0, 1] on the other make no pairs; run the missing ones"),
        ("twice", "both have seed 0; name one of them"),
        ("steps", "half stopped after 10 of 30 steps; run its command again to finish it"),
        ("stopped", "half stopped after 1 of 2 epochs; run its command again to finish it"),
    ],
)
def test_what_cannot_be_compared_is_said(
    cli: Cli, arms: tuple[list[str], list[str]], here: Path, change: str, message: str
) -> None:
    first, second = arms
    arguments = {
        "missing": ["nowhere", "--with", *second],
        "metric": [*first, "--with", *second, "--metric", "val/knn"],
        "pairs": [*first, "--with", *second[:2]],
        "twice": [first[0], first[0], "--with", second[0]],
        "stopped": [make_run(here / "stopped/half", 0, [0.5]), "--with", second[0]],
        "steps": [make_run(here / "steps/half", 0, [0.5], None, 30), "--with", second[0]],
    }[change]
    outcome = cli("compare", *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
