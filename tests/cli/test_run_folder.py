"""What the same command does a second time, and how a run is named."""

from pathlib import Path

import pytest

from mae_lightning.cli.run import Progress, Run, decide, default_name
from mae_lightning.cli.saved_config import changes

FOLDER = Path("runs/x")


def choose(
    resume: str = "auto",
    saved: Progress | None = None,
    changed: str | None = None,
    is_used: bool | None = None,
    max_epochs: int | None = 10,
    max_steps: int = -1,
) -> tuple[str, str]:
    used = saved is not None if is_used is None else is_used
    decision = decide(
        FOLDER, resume, saved=saved, is_used=used, changed=changed, max_epochs=max_epochs, max_steps=max_steps
    )
    return decision.action, decision.line


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_an_empty_folder_starts_a_run(resume: str) -> None:
    assert choose(resume) == ("start", "runs/x: a new run")


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_an_unfinished_run_goes_on(resume: str) -> None:
    line = "runs/x: goes on after 3 epochs, 120 steps, from checkpoints/last.ckpt"
    assert choose(resume, Progress(3, 120)) == ("continue", line)


@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_epochs": 2}, {"max_epochs": None, "max_steps": 120}])
def test_a_complete_run_stops(limits: dict[str, int]) -> None:
    line = "runs/x: complete after 3 epochs, 120 steps; another --run.name starts a new run"
    assert choose("auto", Progress(3, 120), **limits) == ("stop", line)


@pytest.mark.parametrize("limits", [{"max_epochs": -1}, {"max_epochs": None}, {"max_epochs": None, "max_steps": 121}])
def test_a_run_without_a_limit_reached_goes_on(limits: dict[str, int]) -> None:
    assert choose("auto", Progress(3, 120), **limits)[0] == "continue"


def test_a_run_whose_last_validation_was_cut_short_goes_on() -> None:
    assert choose("auto", Progress(3, 120, validation_pending=True), max_epochs=None, max_steps=120)[0] == "continue"
    assert choose("auto", Progress(3, 120, validation_pending=True), max_epochs=3)[0] == "stop"


def test_must_needs_a_checkpoint() -> None:
    with pytest.raises(ValueError, match=r"^--run.resume=must, but runs/x/checkpoints/last.ckpt is not there; "):
        choose("must")


@pytest.mark.parametrize("saved", [None, Progress(3, 120)])
def test_never_overwrites_nothing(saved: Progress | None) -> None:
    with pytest.raises(ValueError, match=r"^--run.resume=never, but runs/x holds a run; take another --run.name$"):
        choose("never", saved, is_used=True)


def test_a_run_of_another_config_is_not_gone_on_with() -> None:
    message = "^runs/x holds a run of another config: model.mask_ratio: 0.75 -> 0.5; take another --run.name$"
    with pytest.raises(ValueError, match=message):
        choose("auto", Progress(3, 120), changed="model.mask_ratio: 0.75 -> 0.5")


def test_a_run_killed_before_its_first_checkpoint_starts_again_whatever_has_changed() -> None:
    assert choose("auto", None, is_used=True, changed="model.mask_ratio: 0.75 -> 0.5")[0] == "start"


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        (["shipped/recipes/quickstart/pretrain.yaml"], "quickstart-pretrain"),
        (["shipped/recipes/quickstart/pretrain.yaml", "shipped/trainer/cpu.yaml"], "quickstart-pretrain"),
        (["shipped/recipes/a/b.yaml", "shipped/ablations/loss_all.yaml"], "a-b+loss_all"),
        (["mine/deep/own.yaml"], "own"),
        (["shipped/alone.yaml"], "alone"),
        (["shipped/trainer/cpu.yaml"], "unnamed"),
        ([], "unnamed"),
    ],
)
def test_a_run_is_named_after_its_configs(configs: list[str], name: str) -> None:
    assert default_name([Path(config) for config in configs], Path("shipped")) == name


def test_the_folder_is_below_the_folder_of_runs() -> None:
    assert Run(name="a", dir="b").folder == Path("b/a")


SAVED = """
model: {class_path: M, init_args: {ratio: 0.75, gone: 1, part: {class_path: P, init_args: {size: 2}}}}
data: {class_path: D, init_args: {image_size: 28, num_workers: 2}}
seed_everything: 0
trainer: {max_epochs: 3}
"""


@pytest.mark.parametrize(
    ("model", "data", "seed", "change"),
    [
        ({"ratio": 0.75}, {"image_size": 28}, 0, None),
        ({"ratio": 0.75, "new": 2}, {"image_size": 28, "num_workers": 0}, 0, None),
        ({"ratio": 0.5}, {"image_size": 28}, 0, "model.ratio: 0.75 -> 0.5"),
        ({"ratio": 0.75}, {"image_size": 32}, 0, "data.image_size: 28 -> 32"),
        ({"ratio": 0.75}, {"image_size": 28}, 1, "seed_everything: 0 -> 1"),
        (
            {"ratio": 0.5, "part": {"class_path": "P", "init_args": {"size": 3}}},
            {"image_size": 32, "num_workers": 8},
            1,
            "model.ratio: 0.75 -> 0.5; model.part.size: 2 -> 3; data.image_size: 28 -> 32; seed_everything: 0 -> 1",
        ),
        (
            {"ratio": 0.75, "part": None},
            {"image_size": 28},
            0,
            "model.part: {'size': 2} -> None",
        ),
    ],
)
def test_decisive_changes_are_found_and_others_are_not(
    tmp_path: Path, model: dict[str, float], data: dict[str, int], seed: int, change: str | None
) -> None:
    (tmp_path / "config.yaml").write_text(SAVED)
    now = {
        "model": {"class_path": "M", "init_args": model},
        "data": {"class_path": "D", "init_args": data},
        "trainer": {"max_epochs": 9},
        "seed_everything": seed,
    }
    assert changes(tmp_path / "config.yaml", now) == change
    assert changes(tmp_path / "nothing.yaml", now) is None


def test_many_changes_are_cut_short(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"model: {{{', '.join(f'a{i}: {i}' for i in range(10))}, text: {'x' * 90}}}")
    now = {"model": {f"a{i}": i + 1 for i in range(10)} | {"text": "y"}}
    found = changes(tmp_path / "config.yaml", now)
    assert found is not None
    assert found.startswith("model.a0: 0 -> 1; model.a1: 1 -> 2; ")
    assert found.endswith("; model.a7: 7 -> 8; and 3 more")
