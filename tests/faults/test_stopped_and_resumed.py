"""R3: told to go in a validation or before one, and started again, a run ends as one that was never stopped."""

import csv
from pathlib import Path

import pytest
import torch
from grey_shard import write_grey_shard
from small_run import ON_CPU, SMALL

from mae_lightning.__main__ import main
from mae_lightning.callbacks.preemption import MARKER, REQUEUE_CODE

RUN = Path("runs/run")
OPTIONS = [
    *SMALL,
    *ON_CPU,
    "--data.init_args.global_batch_size=8",
    "--data.init_args.num_workers=0",
    "--trainer.max_epochs=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
]
"""Two epochs of five steps."""
WITHIN_EPOCHS = "--trainer.val_check_interval=2"
AVERAGE = ["--trainer.callbacks+=mae_lightning.callbacks.WeightEMA", "--trainer.callbacks.decay=0.5"]
TIMES = ("train/images_per_second", "train/data_wait_share")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty labelled images."""
    return write_grey_shard(tmp_path_factory.mktemp("shards") / "grey-000.tar", 40, 4)


def fit(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    # Lightning 2.6 calls jsonargparse by names that version 5 takes away: for Lightning to change
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    return main(["--allow-import=in_run", "fit", *OPTIONS, *options])


def stop(moment: str, after: int) -> list[str]:
    return [
        "--trainer.callbacks+=in_run.StopAt",
        f"--trainer.callbacks.moment={moment}",
        f"--trainer.callbacks.after={after}",
    ]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / RUN / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those that the checkpoint gives to others, and where they are averages those that train too."""
    content = torch.load(folder / RUN / "checkpoints/last.ckpt", weights_only=True)
    training = {f"training {name}": value for name, value in content.get("current_model_state", {}).items()}
    return content["state_dict"] | training


@pytest.mark.filterwarnings("ignore:.*ended before the epoch ended")  # the data module brings the loader there
@pytest.mark.parametrize(
    ("options", "moment", "after"),
    [
        pytest.param([], "validation", 5, id="in a validation"),
        pytest.param([], "validation", 10, id="in the last validation"),
        pytest.param(
            ["--trainer.max_epochs=-1", "--trainer.max_steps=10"], "validation", 10, id="when all steps are made"
        ),
        pytest.param(
            ["--trainer.max_epochs=-1", "--trainer.max_steps=10"],
            "step",
            10,
            id="after the last step, before its validation",
        ),
        pytest.param(
            ["--trainer.max_epochs=-1", "--trainer.max_steps=7"], "step", 7, id="after the last step, with none due"
        ),
        pytest.param([WITHIN_EPOCHS], "validation", 7, id="in a validation within an epoch"),
        pytest.param([WITHIN_EPOCHS], "step", 8, id="a step before a validation"),
        pytest.param(AVERAGE, "validation", 5, id="while the average is validated"),
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    options: list[str], moment: str, after: int, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*options, f"--data.init_args.train={shard}", f"--data.init_args.val={shard}"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert fit(whole, monkeypatch, *options) == 0
    assert fit(again, monkeypatch, *options, *stop(moment, after)) == REQUEUE_CODE
    assert (again / RUN / MARKER).is_file()
    assert fit(again, monkeypatch, *options) == 0
    assert not (again / RUN / MARKER).exists()
    assert rows(again) == rows(whole)
    expected, found = weights(whole), weights(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    (again / RUN / MARKER).touch()
    assert fit(again, monkeypatch, *options) == 0
    assert not (again / RUN / MARKER).exists(), "a complete run wants no other start"
