"""fit and validate from end to end, on a few images and a tiny model."""

import csv
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, Timer

from mae_lightning.cli.run import LAST_CHECKPOINT
from mae_lightning.cli.training import without_replaced
from mae_lightning.commands.configs import shipped_configs

RUN = Path("runs/quickstart-pretrain")


def test_a_run_from_start_to_end(program: Callable, here: Path, small: tuple[str, ...]) -> None:
    outcome = program("fit", *small)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert outcome.out.splitlines()[0] == f"{RUN}: a new run"
    assert (RUN / LAST_CHECKPOINT).is_file()
    settings = yaml.safe_load((RUN / "config.yaml").read_text())
    assert settings["run"]["name"] == "quickstart-pretrain"
    assert settings["model"]["init_args"]["decoder"]["init_args"]["dim"] == 8
    assert "image_size" not in settings["model"]["init_args"]
    with (RUN / "metrics.csv").open() as file:
        assert any(row["train/loss"] for row in csv.DictReader(file))


@pytest.fixture
def trained(cli: Callable, small: tuple[str, ...]) -> tuple[str, ...]:
    """A finished run; returns the arguments that made it."""
    outcome = cli("fit", *small)
    assert outcome.code == 0, outcome.err
    return small


def paces() -> list[str]:
    """The measured pace of each step of the run."""
    with (RUN / "metrics.csv").open() as file:
        return [row["train/images_per_second"] for row in csv.DictReader(file) if row["train/images_per_second"]]


def test_what_the_same_command_does_later(cli: Callable, trained: tuple[str, ...]) -> None:
    outcome = cli("fit", *trained)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{RUN}: complete after 1 epochs, 2 steps; another --run.name starts a new run\n"

    outcome = cli("fit", *trained, "--run.resume=never")
    assert outcome.err == f"error: --run.resume=never, but {RUN} holds a run; take another --run.name\n"

    outcome = cli("fit", *trained, "--model.init_args.mask_ratio=0.5")
    changed = "model.mask_ratio: 0.75 -> 0.5"
    assert outcome.err == f"error: {RUN} holds a run of another config: {changed}; take another --run.name\n"

    first = paces()[0]
    outcome = cli("fit", *trained, "--run.resume=must", "--trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    assert paces()[0] == first  # had it begun anew, the clock would show
    assert len(paces()) == 4
    assert outcome.out.splitlines()[0] == f"{RUN}: goes on after 1 epochs, 2 steps, from {LAST_CHECKPOINT}"
    assert torch.load(RUN / LAST_CHECKPOINT, weights_only=True)["global_step"] == 4

    outcome = cli("fit", *trained, "--run.resume=must", "--run.name=other")
    start = "error: --run.resume=must, but runs/other/checkpoints/last.ckpt is not there; "
    assert outcome.err.startswith(start)
    assert outcome.code == 2


def test_the_saved_config_validates_the_run(cli: Callable, trained: tuple[str, ...]) -> None:
    before = (RUN / "metrics.csv").read_text()
    outcome = cli("validate", f"--config={RUN / 'config.yaml'}")
    assert outcome.code == 0, outcome.err
    assert "val/loss" in outcome.out
    assert (RUN / "metrics.csv").read_text() == before


def test_every_epoch_is_kept_also_without_its_validation(cli: Callable, small: tuple[str, ...]) -> None:
    assert cli("fit", *small, "--trainer.check_val_every_n_epoch=5").code == 0
    assert torch.load(RUN / LAST_CHECKPOINT, weights_only=True)["epoch"] == 0


def test_one_seed_serves_the_order_and_the_masks(cli: Callable, small: tuple[str, ...]) -> None:
    assert cli("fit", *small, "--seed_everything=5").code == 0
    assert torch.load(RUN / LAST_CHECKPOINT, weights_only=True)["ShardDataModule"]["recipe"]["seed"] == 5
    assert "seed" not in yaml.safe_load((RUN / "config.yaml").read_text())["data"]["init_args"]


def test_damaged_checkpoint(cli: Callable, trained: tuple[str, ...]) -> None:
    (RUN / LAST_CHECKPOINT).write_bytes(b"no checkpoint")
    outcome = cli("fit", *trained)
    assert outcome.code == 2
    assert outcome.err.startswith("error: checkpoint")
    assert str(RUN / LAST_CHECKPOINT) in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_trial_of_a_few_batches_leaves_nothing(cli: Callable, small: tuple[str, ...]) -> None:
    outcome = cli("fit", *small, "--trainer.fast_dev_run=true")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] == f"{RUN}: a trial of a few batches, nothing is kept"
    assert not (RUN / "config.yaml").exists()
    assert not (RUN / LAST_CHECKPOINT).exists()


def test_training_on_a_cpu_keeps_what_it_frees(
    cli: Callable, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("mae_lightning.cli.training.keep_freed_memory", lambda: told.append("once"))
    assert cli("fit", *small, "--trainer.fast_dev_run=true").code == 0
    assert told == ["once"]


def test_an_interruption_keeps_the_run_and_exits_with_130(
    cli: Callable, here: Path, trained: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from lightning.pytorch.callbacks import Callback\nclass Stop(Callback):\n"
    (here / "stopping.py").write_text(source + "    def on_train_start(self, *_): raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(str(here))
    handler = signal.getsignal(signal.SIGINT)  # Lightning sets another one
    stop = ("--allow-import=stopping", "--trainer.callbacks+=stopping.Stop", "--trainer.max_epochs=2")
    try:
        outcome = cli("fit", *trained, *stop)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert outcome.code == 130
    assert outcome.err == f"interrupted; the same command goes on from {RUN / LAST_CHECKPOINT}\n"


CALLBACKS = """
trainer:
  callbacks+:
  - class_path: lightning.pytorch.callbacks.Timer
    init_args: {duration: {hours: 1}}
  logger: false
seed_everything: 5
data: {init_args: {image_size: [32, 28]}}
"""

PROBE = """
from lightning.pytorch.callbacks import Callback
class Probe(Callback):
    def on_train_start(self, trainer, task):
        print("callbacks:", *(type(callback).__name__ for callback in trainer.callbacks))
        print("loggers:", len(trainer.loggers))
        print("links:", task.model.image_size, task.model.num_channels, task.global_batch_size, task.seed)
        print("statistics:", len(task.normalize.mean.flatten()), trainer.datamodule.mean)
"""


def test_callbacks_are_added_loggers_taken_away_and_the_model_takes_from_the_data(
    cli: Callable, here: Path, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "over.yaml").write_text(CALLBACKS)
    (here / "probe_callback.py").write_text(PROBE)
    monkeypatch.syspath_prepend(str(here))
    probe = ("--allow-import=probe_callback", "--trainer.callbacks+=probe_callback.Probe")
    outcome = cli("fit", *small, "--config=over.yaml", *probe)
    assert outcome.code == 0, outcome.err
    lines = dict(line.split(": ", 1) for line in outcome.out.splitlines() if ": " in line)
    names = lines["callbacks"].split()
    assert {"Timer", "Probe", "ModelCheckpoint", "RunSummary", "SavedConfig"} <= set(names)
    assert lines["loggers"] == "0"
    assert lines["links"] == "(32, 28) 1 8 5"
    assert lines["statistics"].startswith("1 (0.")


UPLOADER = """
from lightning.pytorch.callbacks import Callback
class Uploader(Callback):
    def __init__(self, url: str, hf_token: str) -> None:
        assert "canary" in url + hf_token
"""
WITH_SECRETS = """
trainer:
  callbacks+:
  - {class_path: uploading.Uploader, init_args: {url: "https://canary@host/x", hf_token: canary}}
"""


def test_a_callback_of_the_users_replaces_ours_of_its_class_but_checkpoints_add_up() -> None:
    ours: list[Callback] = [ModelCheckpoint(), Timer(), LearningRateMonitor()]
    assert without_replaced(ours, [Timer(), ModelCheckpoint()]) == [ours[0], ours[2]]
    assert without_replaced(ours, Timer()) == [ours[0], ours[2]]
    assert without_replaced(ours, None) == ours


def test_secrets_stay_out_of_the_saved_config(
    cli: Callable, here: Path, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "uploading.py").write_text(UPLOADER)
    (here / "over.yaml").write_text(WITH_SECRETS)
    monkeypatch.syspath_prepend(str(here))
    outcome = cli("fit", *small, "--config=over.yaml", "--allow-import=uploading")
    assert outcome.code == 0, outcome.err
    text = Path("runs/quickstart-pretrain+over/config.yaml").read_text()
    assert "https://***@host/x" in text
    assert "hf_token: '***'" in text
    assert "canary" not in text


def shipped(kind: str) -> list[str]:
    return [name for name, path in shipped_configs().items() if kind in path.parts]


@pytest.mark.parametrize("name", shipped("recipes"))
def test_every_shipped_recipe_parses(cli: Callable, name: str) -> None:
    outcome = cli("fit", f"--config={name}", "--print_config")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(outcome.out)["model"]["class_path"].startswith("mae_lightning.tasks.")


@pytest.mark.parametrize(
    "name", [*shipped("trainer"), *shipped("logging"), *shipped("ablations"), *shipped("variants")]
)
def test_every_shipped_overlay_parses(cli: Callable, name: str) -> None:
    recipe = "quickstart/scratch" if name.startswith("ablations/vit_") else "quickstart/pretrain"
    plain = yaml.safe_load(cli("fit", f"--config={recipe}", "--print_config").out)
    outcome = cli("fit", f"--config={recipe}", f"--config={name}", "--print_config")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(outcome.out) != plain


def test_help_pages(cli: Callable) -> None:
    text = cli("fit", "--help").out
    assert text.startswith("usage: mae-lightning fit --config RECIPE")
    assert text.index("  --run.resume {") < text.index("  --trainer.max_epochs MAX")
    assert "-->" not in text
    assert "--model.mask_ratio" in cli("fit", "--model.help", "mae_lightning.tasks.MAEPretraining").out
