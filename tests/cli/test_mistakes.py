"""Every typical mistake is one exact line on stderr, and exit code 2."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mae_lightning.cli.configured import read_configured

QUICKSTART = "--config=quickstart/pretrain"
RECIPE = """\
model:
  class_path: mae_lightning.tasks.MAEPretraining
  init_args:
    encoder: nano/4
    {model}
data:
  class_path: mae_lightning.data.ShardDataModule
  init_args:
    train: fashion_mnist:train
    {data}
trainer:
  max_epochs: 1
  {trainer}
"""


def recipe(model: str = "", data: str = "", trainer: str = "") -> str:
    return RECIPE.format(model=model, data=data, trainer=trainer)


def check(cli: Callable, line: str, *arguments: str) -> None:
    outcome = cli("fit", "--run.wandb=off", "--trainer.accelerator=cpu", *arguments)
    assert outcome.err == f"error: {line}\n"
    assert outcome.code == 2


MISSPELT = [
    ("--modle=x", "modle: there is no such setting; did you mean 'model'?"),
    ("--trainer.max_epoch=3", "trainer.max_epoch: Trainer has no such argument; did you mean 'max_epochs'?"),
    ("--run.nmae=x", "run.nmae: Run has no such argument; did you mean 'name'?"),
    (
        "--model.init_args.mask_raito=0.5",
        "model.init_args.mask_raito: MAEPretraining has no such argument; did you mean 'mask_ratio'?",
    ),
    (
        "--model.mask_raito=0.5",
        "model.init_args.mask_raito: MAEPretraining has no such argument; did you mean 'mask_ratio'?",
    ),
    (
        "--model.init_args.decoder.init_args.dept=3",
        "model.init_args.decoder.init_args.dept: TransformerDecoder has no such argument; did you mean 'depth'?",
    ),
    (
        "--data.init_args.globl_batch_size=3",
        "data.init_args.globl_batch_size: ShardDataModule has no such argument; did you mean 'global_batch_size'?",
    ),
    (
        "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.Timer, init_args: {duraton: 1}}",
        "trainer.callbacks.init_args.duraton: Timer has no such argument; did you mean 'duration'?",
    ),
]


@pytest.mark.parametrize(("argument", "line"), MISSPELT)
def test_misspelt_key_on_the_command_line(cli: Callable, argument: str, line: str) -> None:
    check(cli, line, QUICKSTART, argument)


@pytest.mark.parametrize(
    ("part", "text", "line"),
    [
        (
            "model",
            "mask_raito: 0.5",
            "model.init_args.mask_raito: MAEPretraining has no such argument; did you mean 'mask_ratio'?",
        ),
        (
            "model",
            "decoder: {class_path: mae_lightning.models.TransformerDecoder, init_args: {dept: 2}}",
            "model.init_args.decoder.init_args.dept: TransformerDecoder has no such argument; did you mean 'depth'?",
        ),
        ("trainer", "max_stps: 1", "trainer.max_stps: Trainer has no such argument; did you mean 'max_steps'?"),
        ("trainer", "max_steps: many", "trainer.max_steps: expected an integer, not 'many'"),
        ("trainer", "precision: [bf16]", None),
    ],
)
def test_mistake_in_a_config_names_the_file(cli: Callable, here: Path, part: str, text: str, line: str | None) -> None:
    (here / "my.yaml").write_text(recipe(**{part: text}))
    if line is None:
        outcome = cli("fit", "--config=my.yaml")
        assert outcome.err.startswith("error: trainer.precision: expected 64 or 32 or 16 or 'transformer-engine'")
        assert outcome.err.endswith("or null, not ['bf16'] (in my.yaml)\n")
    else:
        check(cli, f"{line} (in my.yaml)", "--config=my.yaml")


def test_a_bare_off_is_no_word_in_yaml(cli: Callable, here: Path) -> None:
    (here / "my.yaml").write_text(recipe() + "run: {wandb: off}\n")
    line = "run.wandb: expected 'auto' or 'online' or 'offline' or 'off', not False; a bare on, off, yes or no is true"
    outcome = cli("fit", "--config=my.yaml")
    assert outcome.err == f"error: {line} or false in YAML: put it in quotes (in my.yaml)\n"


def test_arguments_beside_class_path(cli: Callable, here: Path) -> None:
    (here / "my.yaml").write_text(recipe().replace("  init_args:\n    encoder: nano/4", "  encoder: nano/4"))
    check(cli, "model.encoder: belongs under init_args, beside class_path (in my.yaml)", "--config=my.yaml")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--trainer.max_epochs=ten", "trainer.max_epochs: expected an integer or null, not 'ten'"),
        ("--trainer.max_epochs", "trainer.max_epochs: expected an integer or null, not 'true'"),
        ("--model.init_args.warmup_epochs=some", "model.init_args.warmup_epochs: expected a number, not 'some'"),
        ("--model.init_args.loss_on=visible", "model.init_args.loss_on: expected 'masked' or 'all', not 'visible'"),
        ("--run.resume=maybe", "run.resume: expected 'auto' or 'must' or 'never', not 'maybe'"),
        (
            "--data.init_args.seed=4",
            "data.init_args.seed follows seed_everything; set --seed_everything instead",
        ),
        ("--seed_everything=-1", "seed_everything: expected 0 to 4294967295, not -1"),
        ("--seed_everything=4294967296", "seed_everything: expected 0 to 4294967295, not 4294967296"),
        ("--trainer.devices=0", "trainer.devices 0: a run has at least 1"),
        (
            "--trainer.val_check_interval=0",
            "trainer.val_check_interval 0: give batches, at least 1, or a share of an epoch above 0.0",
        ),
        ("--model.init_args.decoder.init_args.depth=-1", "a decoder of depth -1 is none; it has at least 1 block"),
        ("--seed_everything=x", "seed_everything: expected true or false or an integer, not 'x'"),
        (
            "--data.init_args.augmentation=5",
            "data.init_args.augmentation: expected Augmentation or null, not '5'",
        ),
        ("--trainer=5", "trainer: expected the arguments of Trainer, not '5'"),
        (
            "--data.init_args.image_size=[1,2,3]",
            "data.init_args.image_size: expected an integer or a list of 2 values, not [1, 2, 3]",
        ),
    ],
)
def test_wrong_type(cli: Callable, argument: str, line: str) -> None:
    check(cli, line, QUICKSTART, argument)


NULLS = [
    ("model: {init_args: {mask_ratio: null}}", "model.init_args.mask_ratio: expected a number, not null"),
    ("run: {limits: null}", "run.limits: expected Limits, not null"),
    ("run: null", "run: expected the arguments of Run, not null"),
    ("trainer: null", "trainer: expected the arguments of Trainer, not null"),
    ("seed_everything: null", "seed_everything: expected true or false or an integer, not null"),
]


@pytest.mark.parametrize(("text", "line"), NULLS)
def test_null_where_there_has_to_be_something(cli: Callable, here: Path, text: str, line: str) -> None:
    (here / "my.yaml").write_text(text)
    check(cli, f"{line} (in my.yaml)", QUICKSTART, "--config=my.yaml")
    outcome = cli("plan", QUICKSTART, "--config=my.yaml")
    assert (outcome.code, outcome.err) == (2, f"error: {line} (in my.yaml)\n")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--model.init_args.mask_ratio=null", "model.init_args.mask_ratio: expected a number, not 'null'"),
        ("--run.limits=null", "run.limits: expected Limits, not 'null'"),
        ("--trainer=null", "trainer: expected the arguments of Trainer, not null"),
    ],
)
def test_null_on_the_command_line(cli: Callable, argument: str, line: str) -> None:
    check(cli, line, QUICKSTART, argument)
    assert cli("plan", QUICKSTART, argument).err == f"error: {line}\n"


@pytest.mark.parametrize("name", ["quickstart/pretrain", "imagenet/finetune_base"])
def test_the_nulls_of_a_runs_own_config_are_right(here: Path, name: str) -> None:
    plain = read_configured([f"--config={name}", "--trainer.max_steps=7", "--trainer.max_epochs=null"]).plain
    (here / "config.yaml").write_text(yaml.safe_dump(plain))
    assert read_configured(["--config=config.yaml"]).plain == plain


@pytest.mark.parametrize("name", ["--trainer.callbacks", "--trainer.callbacks+"])
def test_null_beside_a_callbacks_own_arguments(name: str) -> None:
    words = (f"{name}=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/loss")
    plain = read_configured([QUICKSTART, *words, "--trainer.callbacks.patience=7", "--data.init_args.val=null"]).plain
    assert plain["trainer"]["callbacks"][-1]["init_args"]["patience"] == 7


@pytest.mark.parametrize("name", ["--trainer.callbacks", "--trainer.callbacks+"])
def test_a_mistake_beside_a_callbacks_own_arguments(cli: Callable, name: str) -> None:
    words = (f"{name}=EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=7")
    line = "trainer.max_epoch: Trainer has no such argument; did you mean 'max_epochs'?"
    check(cli, line, QUICKSTART, *words, "--trainer.max_epoch=3")
    line = "trainer.callbacks.init_args.monitr: EarlyStopping has no such argument; did you mean 'monitor'?"
    check(cli, line, QUICKSTART, *words, "--trainer.callbacks.monitr=val/loss")


def test_argument_that_is_missing(cli: Callable) -> None:
    line = "trainer.callbacks.init_args.monitor: is missing; EarlyStopping needs text"
    check(cli, line, QUICKSTART, "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping")


def test_missing_config(cli: Callable) -> None:
    line = "config 'quickstart/pretrian' is neither a file nor a shipped config; did you mean 'quickstart/pretrain'?"
    check(cli, line, "--config=quickstart/pretrian")


def test_missing_included_config(cli: Callable, here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/my.yaml").write_text("model: ../nothing.yaml\ndata: x\n")
    line = "model: config file sub/../nothing.yaml does not exist (in sub/my.yaml)"
    check(cli, line, "--config=sub/my.yaml")


def test_config_that_is_no_yaml(cli: Callable, here: Path) -> None:
    (here / "my.yaml").write_text("trainer:\n  max_epochs: 3\n max_steps: 4\n")
    outcome = cli("fit", "--config=my.yaml")
    assert outcome.err.startswith("error: my.yaml, line 3, column 2: ")
    assert outcome.err.endswith("; this is not valid YAML\n")
    assert outcome.err.count("\n") == 1


def test_config_that_is_no_text(cli: Callable, here: Path) -> None:
    (here / "my.yaml").write_bytes(b"# Caf\xe9\ntrainer: {}\n")
    check(cli, "my.yaml: byte 5 is no UTF-8; save the file as that", QUICKSTART, "--config=my.yaml")


def test_devices_that_are_no_number(cli: Callable) -> None:
    outcome = cli("fit", "--run.wandb=off", "--trainer.accelerator=cpu", QUICKSTART, "--trainer.devices=abc")
    assert outcome.code == 2
    assert outcome.err.startswith("error: trainer: `devices` selected with `CPUAccelerator` should be an int > 0.")
    assert outcome.err.count("\n") == 1


def test_no_config_at_all(cli: Callable) -> None:
    check(cli, "no model is given; name a recipe, such as --config quickstart/pretrain")


def test_config_without_its_option(cli: Callable) -> None:
    check(
        cli,
        "unexpected 'quickstart/pretrain'; configs are named by --config, settings by --key=value",
        "quickstart/pretrain",
    )


def test_option_without_its_value(cli: Callable) -> None:
    check(cli, "--config needs a value: a file, or a shipped config such as quickstart/pretrain", "--config")


def test_ckpt_path_is_not_for_fit(cli: Callable) -> None:
    line = "ckpt_path: fit goes on from its own run; to start from other weights, set model.init_args.init_from"
    check(cli, line, QUICKSTART, "--ckpt_path=x.ckpt")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--model=MAEPretrainig",
            "model.class_path: there is no LightningModule 'MAEPretrainig'; did you mean 'MAEPretraining'?",
        ),
        (
            "--model=mae_lightning.tasks.MAEPretrainig",
            "model.class_path: mae_lightning.tasks has no 'MAEPretrainig'; did you mean 'MAEPretraining'?",
        ),
        (
            "--model=mae_lightning.taks.A",
            "model.class_path: there is no module 'mae_lightning.taks'; did you mean 'tasks'?",
        ),
        (
            "--model=mae_lightning.data.ShardDataModule",
            "model.class_path: mae_lightning.data.ShardDataModule is not a LightningModule",
        ),
        ("--model=nothing.yaml", "model: config file nothing.yaml does not exist"),
        (
            "--model.init_args.target=Pixls",
            "model.init_args.target.class_path: there is no Target 'Pixls'; did you mean 'Pixels'?",
        ),
        (
            "--model.init_args.encoder=nan/4",
            "no size 'nan' in encoder 'nan/4'; the sizes are nano, tiny, small, base, large, huge",
        ),
    ],
)
def test_unknown_model(cli: Callable, argument: str, line: str) -> None:
    check(cli, line, QUICKSTART, argument)


def test_missing_shard(cli: Callable) -> None:
    check(
        cli,
        "no shard at nothing.tar; give the path of a .tar or .tar.gz file",
        QUICKSTART,
        "--data.init_args.train=nothing.tar",
    )


def test_data_without_a_name(cli: Callable) -> None:
    line = "the name of the data is empty; name a folder, shards, a manifest or an image"
    check(cli, line, QUICKSTART, "--data.init_args.train=")


def test_empty_folder(cli: Callable, here: Path) -> None:
    (here / "empty").mkdir()
    check(
        cli,
        "no images and no shards in empty; put .jpg, .png or .webp files or .tar shards there",
        QUICKSTART,
        "--data.init_args.train=empty",
    )


def test_corrupt_first_shard(cli: Callable, here: Path) -> None:
    with tarfile.open(here / "bad-000.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("0.cls"), io.BytesIO())
    content = bytearray((here / "bad-000.tar").read_bytes())
    content[3] ^= 0xFF
    (here / "bad-000.tar").write_bytes(content)
    line = "bad-000.tar: not a tar archive, or a damaged header at byte 0"
    check(cli, line, QUICKSTART, "--data.init_args.train=bad-000.tar")


def test_image_smaller_than_a_patch(cli: Callable) -> None:
    line = "image size 2 x 2 is smaller than a patch of 4 x 4; use larger images or smaller patches"
    check(cli, line, QUICKSTART, "--data.init_args.image_size=2")


def test_image_not_a_multiple_of_the_patch(cli: Callable) -> None:
    line = "image size 30 x 30 is not a multiple of the patch size 4 x 4; 32 x 32 would be"
    check(cli, line, QUICKSTART, "--data.init_args.image_size=30")


def test_batch_that_does_not_divide(cli: Callable) -> None:
    line = "global_batch_size 64 does not divide by 1 devices x accumulation 3 = 3; 63 or 66 would"
    arguments = ["--data.init_args.global_batch_size=64", "--trainer.accumulate_grad_batches=3", "--trainer.devices=1"]
    check(cli, line, QUICKSTART, *arguments)


def test_what_the_data_owns_is_not_set_on_the_model(cli: Callable) -> None:
    line = "model.init_args.image_size comes from the data; set it under data.init_args instead"
    check(cli, line, QUICKSTART, "--model.init_args.image_size=[64,64]")


def test_checkpoint_that_is_not_there(cli: Callable) -> None:
    outcome = cli("validate", QUICKSTART)
    path = "runs/quickstart-pretrain/checkpoints/last.ckpt"
    assert outcome.err == f"error: checkpoint {path} does not exist; train with fit first, or give --ckpt_path=FILE\n"
    assert outcome.code == 2


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        ("--model=subprocess.Popen", "model.class_path"),
        ("--trainer.callbacks+=subprocess.Popen", "trainer.callbacks.class_path"),
        ("--model.init_args.sampler={class_path: subprocess.Popen}", "model.init_args.sampler.class_path"),
    ],
)
def test_foreign_classes_are_refused(cli: Callable, argument: str, path: str) -> None:
    line = "configs may not name subprocess.Popen; if you trust subprocess, add --allow-import subprocess"
    check(cli, f"{path}: {line}", QUICKSTART, argument)
