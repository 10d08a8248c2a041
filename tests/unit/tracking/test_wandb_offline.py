"""W&B's own file is read back: what was logged, and a trial that is known by it alone."""

import json
import shutil

import pytest
import torch
import wandb

from mae_lightning.pictures import draw_sheet
from mae_lightning.tracking import build_loggers, log_picture
from mae_lightning.tracking.trial_board import TrialBoard
from mae_lightning.tracking.trials import read_trials
from mae_lightning.tracking.wandb_file import BLOCK_BYTES, read_offline_run


def test_metrics_and_pictures_reach_the_offline_file(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    loggers = build_loggers(tmp_path, "run", "project", "offline")
    loggers[1].log_metrics({"val/loss": 0.25}, step=7)
    draw_sheet({"original": torch.rand(1, 1, 8, 8)}, tmp_path / "picture.png", "caption")
    log_picture(loggers, "val/reconstructions", tmp_path / "picture.png", step=8)
    loggers[1].experiment.finish()
    wandb.teardown()  # a run's end does not wait for its file
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    history = read_offline_run(file).history
    assert any(row.get("val/loss") == 0.25 for row in history)
    (picture,) = [row[key] for row in history if (key := "val/reconstructions/filenames") in row]
    assert (file.parent / "files" / picture[0]).is_file()


def test_the_id_stays_with_the_folder(tmp_path):
    first, second = (build_loggers(tmp_path, "run", "project", "offline")[1] for _ in range(2))
    other = build_loggers(tmp_path / "other", "run", "project", "offline")[1]
    assert first.version == second.version
    assert first.version != other.version


def test_off_writes_the_table_alone(tmp_path):
    assert [type(logger).__name__ for logger in build_loggers(tmp_path, "run", "project", "off")] == ["MetricsCSV"]


STAGES = {"pretrain": {"folder": "pretrain", "seconds": 1.5, "config": "c0ffee"}}
RECORD = {
    "study": "quickstart/figure_5",
    "seed": 3,
    "code": "0.1.0+abc",
    "finished": True,
    "metrics": {"trial/finetune_accuracy": 0.5},
    "draws": {"trial/few_shot_accuracy": [0.25, 0.75]},
    "stages": STAGES,
    "parameters": {"seed": "3", "pretrain.model.init_args.mask_ratio": "0.3", "pretrain.config": "none"},
}


@pytest.fixture
def offline_trial(tmp_path, monkeypatch):
    """The folder of a trial as its board leaves it, and the same as its own file says."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    own, told = tmp_path / "own", tmp_path / "told"
    board = TrialBoard(told, "p", "offline", RECORD["parameters"], RECORD["study"])
    stage = told / "pretrain"
    stage.mkdir()
    rows = "".join(f"{step},{step / 8}\n" for step in range(800))  # more than a block of the file
    (stage / "metrics.csv").write_text(f"step,val/loss\n{rows}")
    board.show("pretrain", stage)
    board.finish(RECORD)
    wandb.teardown()
    own.mkdir()
    (own / "trial.json").write_text(json.dumps(RECORD))
    return own, told


def test_a_trial_known_by_its_offline_run_alone_is_what_its_folder_says(offline_trial, tmp_path):
    own, told = offline_trial
    (file,) = told.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > BLOCK_BYTES
    ((expected,), _), ((found,), unfinished) = read_trials([own]), read_trials([told])
    assert unfinished == []
    names = ("study", "seed", "metrics", "draws", "stages", "code", "seconds", "hashes")
    assert {name: getattr(found, name) for name in names} == {name: getattr(expected, name) for name in names}
    assert found.parameters == {"seed": "3.0", "pretrain.model.mask_ratio": "0.3", "pretrain.config": "none"}
    assert read_trials([file])[0] == [found]
    assert [row["pretrain/val/loss"] for row in read_offline_run(file).history if "pretrain/step" in row][
        799
    ] == 799 / 8
    (told / "trial.json").write_text(json.dumps(RECORD))
    assert [trial.folder for trial in read_trials([tmp_path])[0]] == [own, told]


def test_a_run_that_was_cut_off_is_unfinished_and_a_damaged_one_is_said(offline_trial):
    _, told = offline_trial
    (file,) = told.glob("wandb/offline-run-*/*.wandb")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert read_trials([told]) == ([], [told])
    file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(
        ValueError, match=r"is no file of a W&B run that can be read: the part before byte \d+ is damaged"
    ):
        read_trials([told])
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="its header is another"):
        read_trials([told])


def test_a_run_that_went_on_is_one_trial_and_others_beside_it_are_theirs(offline_trial, tmp_path):
    _, told = offline_trial
    (run,) = (told / "wandb").glob("offline-run-*")
    first = shutil.copytree(run, run.with_name("offline-run-0"), symlinks=True)
    (file,) = first.glob("*.wandb")
    file.write_bytes(file.read_bytes()[:4000])
    board = TrialBoard(tmp_path / "other", "p", "offline", RECORD["parameters"] | {"seed": "4"}, RECORD["study"])
    board.finish(RECORD)
    wandb.teardown()
    (other,) = (tmp_path / "other/wandb").glob("offline-run-*")
    other.rename(run.with_name("offline-run-1"))
    finished, unfinished = read_trials([told])
    assert sorted(trial.seed for trial in finished) == [3, 4]
    assert unfinished == []
