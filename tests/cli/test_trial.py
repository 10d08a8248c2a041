"""Trials: their grammar, their figures, and going on after being stopped; and local sweeps of them."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mae_lightning.commands import sweep
from mae_lightning.commands.stages import Stage, StageRecord, write_json
from mae_lightning.commands.sweep import environment
from mae_lightning.commands.sweep_file import read_sweep
from mae_lightning.commands.trial import _encoder_for, parse
from mae_lightning.tracking.trials import read_trials
from mae_lightning.tracking.wandb_file import read_offline_run

ROOT = Path(__file__).parents[2]

FAKE = """
import os, pathlib, sys, time
words = sys.argv[3:]
given = dict(word.removeprefix("--").split("=", 1) for word in words[1:] if word.startswith("--") and "=" in word)
folder = pathlib.Path(given["run.dir"]) / given["run.name"]
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(f"{folder}\\n")
for name in (here / "slow", here / "broken"):
    if name.exists() and name.read_text() == folder.parent.name:
        time.sleep(60 if name.name == "slow" else 0)
        sys.exit("error: it broke")
value = given.get("model.init_args.mask_ratio", "0.75")
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
if not (here / "mute").exists():
    (folder / "metrics.csv").write_text(f"step,val/accuracy,train/images_per_second\\n1,0.1,90\\n2,{value},110\\n")
(folder / "config.yaml").write_text(f"seed_everything: {given['seed_everything']}\\nmask_ratio: {value}\\n")
(folder / "checkpoints/last.ckpt").write_bytes((here / "last.ckpt").read_bytes())
print("from", given.get("model.init_args.init_from"))
print("threads", os.environ.get("OMP_NUM_THREADS"))
"""


@pytest.fixture
def fake(here):
    """A stand-in for training that takes no time; what it was called for is in the file calls."""
    (here / "fake.py").write_text(FAKE)
    content = {"ShardDataModule": {"position": 0, "data": "0123456789abcdef"}, "flops_per_image": 2}
    torch.save(content, here / "last.ckpt")
    return f"--launcher={sys.executable} {here / 'fake.py'}"


STAGES = ("--pretrain=quickstart/pretrain", "--finetune=quickstart/finetune", "--run.wandb=off")


def calls(here):
    return [Path(line).name for line in (here / "calls").read_text().splitlines()]


def test_settings_go_to_their_stages():
    trial = parse(
        [
            *STAGES,
            "--evaluate=few_shot,knn",
            "--all.trainer.devices=2",
            "--pretrain.config=none",
            "--pretrain.config=ablations/loss_all+ablations/target_pixels",
            "--pretrain.model.init_args.mask_ratio",
            "0.5",
            "--evaluate.data=fashion_mnist",
            "--seed=3",
        ]
    )
    pretrain, finetune, evaluate = (stage.command(Path("t", stage.name), 3, Path("p.ckpt")) for stage in trial.stages)
    assert pretrain[:4] == [
        "fit",
        "--config=quickstart/pretrain",
        "--config=ablations/loss_all",
        "--config=ablations/target_pixels",
    ]
    assert {"--run.dir=t", "--run.name=pretrain", "--seed_everything=3", "--trainer.devices=2"} <= set(pretrain)
    assert "--model.init_args.mask_ratio=0.5" in pretrain
    assert "--trainer.devices=2" in finetune
    assert not any("mask_ratio" in word for word in finetune)
    assert evaluate[:5] == ["evaluate", "p.ckpt", "--protocols", "few_shot", "knn"]
    assert evaluate[-1] == "--data=fashion_mnist"
    assert trial.parameters["pretrain.config"] == "none+ablations/loss_all+ablations/target_pixels"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to run"),
        (["--pretrain=x", "--finetune.a=1"], "a stage that is not run; add --finetune="),
        (["--pretrain=x", "--pretrian.a=1"], "names no stage; did you mean 'pretrain'?"),
        (["--pretrain=x", "--pretrain.a"], "needs a value"),
        (["--pretrain=x", "mask_ratio=1"], "unexpected 'mask_ratio=1'"),
    ],
)
def test_mistakes_are_one_line(words, said):
    with pytest.raises(ValueError, match=said):
        parse(words)


def test_the_name_follows_from_the_settings():
    names = {parse([*STAGES, *more]).folder for more in ([], ["--seed=1"], ["--finetune.a=1"], ["--pretrain.a=1"])}
    assert len(names) == 4
    assert parse(STAGES).folder in names


def test_evaluation_is_of_the_pretrained_encoder_or_else_of_the_last_that_was_trained():
    stages = {name: Stage(name, "x", ()) for name in ("pretrain", "finetune", "probe", "evaluate")}
    places = {name: Path(name) for name in ("pretrain", "finetune", "probe")}
    assert _encoder_for(stages["evaluate"], places) == Path("pretrain")
    del places["pretrain"]
    assert _encoder_for(stages["evaluate"], places) == Path("probe")
    assert _encoder_for(stages["probe"], places) is None
    named = Stage("evaluate", "knn", (("encoder", "other.ckpt"),)).command(Path("t"), 0, Path("p.ckpt"))
    assert named[:2] == ["evaluate", "other.ckpt"]


def test_nothing_to_evaluate_is_said():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        Stage("evaluate", "knn", ()).command(Path("t"), 0, None)


def test_a_stopped_trial_goes_on_and_a_finished_stage_stays(cli, here, fake):
    words = ("trial", *STAGES, fake, "--pretrain.model.init_args.mask_ratio=0.6", "--run.name=t", "--study=x/figure_5")
    (here / "broken").write_text("t")
    outcome = cli(*words)
    assert outcome.code == 2
    assert outcome.err == "error: fit ended with 1: it broke; log: runs/t/pretrain.log\n"
    assert not StageRecord.read(here / "runs/t/pretrain").finished
    (here / "broken").unlink()
    assert cli(*words).code == 0
    assert cli(*words).code == 0
    assert calls(here) == ["pretrain", "pretrain", "finetune"]

    record = json.loads((here / "runs/t/trial.json").read_text())
    assert record["finished"]
    assert record["metrics"]["trial/pretrain_accuracy"] == 0.6
    assert record["metrics"]["trial/finetune_accuracy"] == 0.75
    assert record["metrics"]["trial/pretrain_images_per_second"] == 100
    assert record["metrics"]["trial/pretrain_flops_per_image"] == 2
    assert record["metrics"]["trial/pretrain_seconds"] == record["stages"]["pretrain"]["seconds"] > 0
    assert record["stages"]["finetune"]["manifest"] == "0123456789ab"
    assert record["stages"]["finetune"]["config"] != record["stages"]["pretrain"]["config"]
    assert "from runs/t/pretrain/checkpoints/last.ckpt" in (here / "runs/t/finetune.log").read_text()


@pytest.mark.parametrize(
    "others",
    [
        ["--pretrain=quickstart/pretrain", "--finetune=quickstart/finetune", "--seed=1"],
        ["--pretrain=quickstart/pretrain", "--finetune=quickstart/finetune", "--finetune.trainer.max_epochs=9"],
        ["--finetune=quickstart/finetune"],
    ],
    ids=["seed", "settings", "encoder"],
)
def test_a_folder_keeps_its_trial(cli, here, fake, others):
    common = ("trial", fake, "--run.name=t", "--run.wandb=off")
    assert cli(*common, "--pretrain=quickstart/pretrain", "--finetune=quickstart/finetune").code == 0
    before = (here / "runs/t/trial.json").read_text()
    outcome = cli(*common, *others)
    assert outcome.code == 2
    assert outcome.err == "error: runs/t holds a trial of other settings; take another --run.name\n"
    assert (here / "runs/t/trial.json").read_text() == before
    assert calls(here) == ["pretrain", "finetune"]


def test_a_misspelt_study_is_said_before_anything(cli, here, fake):
    outcome = cli("trial", *STAGES, fake, "--run.name=t", "--study=quickstart/table_1x")
    assert outcome.code == 2
    assert outcome.err.startswith("error: there is no study 'table_1x'; there are table_1a, ")
    assert not (here / "runs").exists()


@pytest.mark.parametrize("name", ["trial.json", "pretrain/stage.json"])
def test_a_damaged_record_is_one_line(cli, here, name):
    (here / "runs/t/pretrain").mkdir(parents=True)
    (here / "runs/t" / name).write_text("{")
    outcome = cli("trial", *STAGES, "--run.name=t")
    said = f"error: runs/t/{name} is damaged; take it away, and the same command writes it anew\n"
    assert (outcome.code, outcome.err) == (2, said)


def test_a_stage_may_be_added(cli, here, fake):
    assert cli("trial", *STAGES, fake, "--run.name=t").code == 0
    assert cli("trial", *STAGES, fake, "--run.name=t", "--probe=quickstart/linear_probe").code == 0
    assert calls(here) == ["pretrain", "finetune", "probe"]


def test_a_stage_that_logged_nothing_has_no_accuracy(cli, here, fake):
    (here / "mute").touch()
    outcome = cli("trial", *STAGES, fake, "--run.name=t")
    assert outcome.code == 0, outcome.err
    assert json.loads((here / "runs/t/trial.json").read_text())["metrics"].keys() == {
        f"trial/{stage}_{figure}" for stage in ("pretrain", "finetune") for figure in ("seconds", "flops_per_image")
    }


def test_shared_pretraining_is_done_once(cli, here, fake):
    for number, more in enumerate([[], ["--finetune.a=1"], ["--seed=1"]]):
        outcome = cli("trial", *STAGES, fake, "--share", *more, f"--run.name={number}")
        assert outcome.code == 0, outcome.err
    places = [json.loads((here / f"runs/{n}/trial.json").read_text())["stages"]["pretrain"]["folder"] for n in range(3)]
    assert places[0] == places[1] != places[2]
    assert places[0].startswith("../shared/pretrain-")
    assert sum(name.startswith("pretrain") for name in calls(here)) == 2


def test_a_trial_is_started_once(cli, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = cli("trial", *STAGES)
    assert outcome.code == 2
    assert "start a trial once" in outcome.err


SWEEP = """\
# A sweep.
method: grid
name: three
parameters:
  pretrain.model.init_args.mask_ratio: {values: [0.25, 0.5, 0.75]}
  seed: {value: 4}
command: ["${env}", "${interpreter}", -m, mae_lightning, trial, --pretrain=quickstart/pretrain, "${args}"]
"""


def test_a_killed_sweep_runs_only_what_is_missing(cli, here, fake, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (here / "three.yaml").write_text(SWEEP)
    words = ["sweep", "three.yaml", fake, "--run.wandb=off"]
    (here / "slow").write_text("mask_ratio=0.5")
    process = subprocess.Popen([sys.executable, "-m", "mae_lightning", *words])
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (here / "runs/three/mask_ratio=0.5/pretrain.log").exists():
        time.sleep(0.2)
    while time.monotonic() < deadline and len(calls(here)) < 2:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130
    before = calls(here)
    assert before == ["pretrain"] * 2
    (here / "slow").unlink()
    (here / "broken").write_text("mask_ratio=0.75")

    outcome = cli(*words)
    assert outcome.code == 1
    assert "3 trials, 1 of them finished before" in outcome.out
    assert "2 of 3: mask_ratio=0.5; about" in outcome.out
    assert "failed: mask_ratio=0.75: fit ended with 1: it broke; log: runs/three/mask_ratio=0.75/pretrain.log" in (
        outcome.out
    )
    folders = [Path(line).parent.name for line in (here / "calls").read_text().splitlines()]
    assert folders == [f"mask_ratio={ratio}" for ratio in (0.25, 0.5, 0.5, 0.75)]
    assert json.loads((here / "runs/three/mask_ratio=0.5/trial.json").read_text())["seed"] == 4


def test_trials_side_by_side_share_the_cores(cli, here, fake, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (here / "three.yaml").write_text(SWEEP)
    assert cli("sweep", "three.yaml", fake, "--run.wandb=off", "--jobs=2", "--trials=2").code == 0
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    logs = [path.read_text() for path in here.glob("runs/three/*/pretrain.log")]
    assert [log.splitlines()[-1] for log in logs] == [f"threads {share}"] * 2
    assert "OMP_NUM_THREADS" not in environment(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(2)["OMP_NUM_THREADS"] == "7"


def test_dry_run_prints_commands_that_a_shell_takes(cli, here):
    (here / "three.yaml").write_text(SWEEP)
    outcome = cli("sweep", "three.yaml", "--dry-run", "--all.trainer.devices=2")
    lines = outcome.out.splitlines()
    assert len(lines) == 3
    words = shlex.split(lines[1])
    assert words[1:4] == ["-m", "mae_lightning", "trial"]
    trial = parse(words[4:])
    assert trial.folder == Path("runs/three/mask_ratio=0.5")
    assert trial.parameters["pretrain.trainer.devices"] == "2"
    assert not (here / "runs").exists()


def random_sweep(**distribution):
    text = f"method: random\nparameters: {{x: {json.dumps(distribution)}}}\ncommand: [trial, '${{args}}']\n"
    Path("random.yaml").write_text(text)
    return read_sweep(Path("random.yaml"))


def test_random_search_is_seeded_and_within_bounds(here):
    sweep = random_sweep(distribution="log_uniform_values", min=1e-4, max=1e-2)
    draws = [values["x"] for values in sweep.combinations(400, seed=1)]
    assert draws == [values["x"] for values in sweep.combinations(400, seed=1)]
    assert draws != [values["x"] for values in sweep.combinations(400, seed=2)]
    assert 1e-4 <= min(draws) < max(draws) <= 1e-2
    assert 160 < sum(draw < 1e-3 for draw in draws) < 240
    assert {values["x"] for values in random_sweep(min=1, max=3).combinations(50)} == {1, 2, 3}
    assert {values["x"] for values in random_sweep(values=["a", "b"]).combinations(50)} == {"a", "b"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("grid", "bayes"), "method 'bayes' needs a server"),
        (("grid", "random"), "a random search has no end of its own"),
        (("{values: [0.25, 0.5, 0.75]}", "{min: 0, max: 1}"), "a grid needs values"),
        (("trial", "fit"), "the command must be"),
        (("parameters", "params"), "is no sweep file"),
        (("{values: [0.25, 0.5, 0.75]}", "3"), "mask_ratio: expected a mapping such as {values: [0.5, 0.75]}, not 3"),
        (("[0.25, 0.5, 0.75]", "3"), "mask_ratio: values is a list with something in it, not 3"),
        (("[0.25, 0.5, 0.75]", "[]"), "mask_ratio: values is a list with something in it, not []"),
        (("0.75]}", "0.75]"), "three.yaml is no YAML: "),
        (("values: [0.25, 0.5, 0.75]", "min: 1e-4, max: 1"), "min '1e-4' is no number; YAML takes 1e-4 for text"),
        (("values: [0.25, 0.5, 0.75]", "min: 2, max: 1"), "min 2 is above max 1"),
        (
            ("values: [0.25, 0.5, 0.75]", "distribution: log_uniform_values, min: 0, max: 1"),
            "log_uniform_values needs a min above 0, not 0",
        ),
        (("0.75]}", "0.75], probabilities: [1]}"), "probabilities is a list of as many numbers as values"),
        (("method: grid", "method: random\nrun_cap: few"), "run_cap 'few' is no number of trials"),
        (("command: [", "command: 3 #"), "the command must be"),
    ],
)
def test_what_needs_a_server_or_is_no_sweep_is_said(cli, here, change, said):
    (here / "three.yaml").write_text(SWEEP.replace(*change))
    outcome = cli("sweep", "three.yaml", "--dry-run")
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["three.yaml", "--run.dir=elsewhere"], "not --run.dir but --dir FOLDER"),
        (["three.yaml", "--run.name", "mine"], "not --run.name but --dir FOLDER"),
        (["three.yaml", "--trials=0"], "--trials 0: at least one trial is run"),
        (["three.yaml", "--trials=-1"], "--trials -1: at least one trial is run"),
        (["three.yaml", "--seed=1"], "--seed is of a random search"),
        (["--all.trainer.devices", "2", "three.yaml"], "config '2' is neither a file nor a shipped config"),
        (["--all.trainer.devices", "2", "three.yaml"], "FILE stands before the settings"),
    ],
)
def test_what_a_sweep_does_not_take(cli, here, words, said):
    (here / "three.yaml").write_text(SWEEP)
    outcome = cli("sweep", *words, "--dry-run")
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_null_is_a_value_of_a_sweep(cli, here):
    (here / "three.yaml").write_text(SWEEP.replace("0.25", "null"))
    words = shlex.split(cli("sweep", "three.yaml", "--dry-run").out.splitlines()[0])
    assert "--pretrain.model.init_args.mask_ratio=null" in words
    assert words[-1] == "--run.name=mask_ratio=null"


def test_a_trial_whose_record_hides_a_setting_is_run_again(cli, here):
    (here / "three.yaml").write_text(SWEEP)
    parser = argparse.ArgumentParser()
    sweep.add_arguments(parser)
    args, _ = parser.parse_known_args(["three.yaml"])
    args.settings = []
    (job, *_) = sweep.plan(args)
    name = "pretrain.model.init_args.mask_ratio"
    for value, is_finished in (("0.25", True), ("***", False)):
        record = {"parameters": job.trial.parameters | {name: value}, "finished": True}
        write_json(job.trial.folder / "trial.json", record)
        assert job.is_finished == is_finished


def test_a_tiny_trial_from_pretraining_to_evaluation(program, here, small, shard, held_out):
    settings = [word.removeprefix("--") for word in small[2:]]
    for_all = ("trainer", "data", "model.init_args.encoder", "model.init_args.warmup_epochs")
    words = [f"--{'all' if word.startswith(for_all) else 'pretrain'}.{word}" for word in settings]
    stages = ("--pretrain=quickstart/pretrain", "--finetune=quickstart/finetune", "--evaluate=knn")
    judged = (f"--evaluate.data={shard}", f"--evaluate.val={held_out}")
    more = ("--pretrain.model.init_args.mask_ratio=0.5", "--seed=7", "--run.name=t", "--run.wandb=offline")
    outcome = program("trial", *stages, *words, *judged, *more)
    assert outcome.code == 0, outcome.err + "".join(log.read_text() for log in here.glob("runs/t/*.log"))
    config = (here / "runs/t/pretrain/config.yaml").read_text()
    assert "mask_ratio: 0.5" in config
    assert "seed_everything: 7" in config
    metrics = json.loads((here / "runs/t/trial.json").read_text())["metrics"]
    names = {"trial/pretrain_loss", "trial/finetune_accuracy", "trial/knn_accuracy", "trial/finetune_seconds"}
    assert names <= metrics.keys()
    assert metrics["trial/pretrain_flops_per_image"] > 1e5
    (board,) = (here / "runs/t/wandb").glob("offline-run-*/*.wandb")
    content = board.read_bytes()
    for name in (b"pretrain/train/loss", b"finetune/val/accuracy", b"trial/knn_accuracy", b"finetune/step"):
        assert name in content
    assert not list((here / "runs/t/pretrain").glob("wandb*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["", f"{sys.executable} -m torch.distributed.run --nproc-per-node 2"])
def test_a_trial_over_two_processes_is_one_run(program, here, small, shard, held_out, launcher):
    settings = [word.removeprefix("--") for word in small[2:]]
    for_all = ("trainer", "data", "model.init_args.encoder", "model.init_args.warmup_epochs")
    words = [f"--{'all' if word.startswith(for_all) else 'pretrain'}.{word}" for word in settings]
    stages = ("--pretrain=quickstart/pretrain", "--finetune=quickstart/finetune", "--evaluate=knn")
    judged = (f"--evaluate.data={shard}", f"--evaluate.val={held_out}", "--study=quickstart/figure_5")
    two = ("--all.trainer.devices=2", "--all.trainer.strategy=ddp", "--pretrain.model.init_args.mask_ratio=0.5")
    outcome = program(
        "trial", *stages, *words, *judged, *two, f"--launcher={launcher}", "--run.name=t", "--run.wandb=offline"
    )
    logs = {log.stem: log.read_text() for log in here.glob("runs/t/*.log")}
    assert outcome.code == 0, outcome.err + "".join(logs.values())
    for stage in ("pretrain", "finetune"):
        assert "8 images a step = 4 on a device x 1 accumulated x 2 devices" in logs[stage]
        assert logs[stage].count("images a step") == 1
    (board,) = here.rglob("*.wandb")
    assert board.is_relative_to(here / "runs/t/wandb")
    run = read_offline_run(board)
    steps = [row["pretrain/step"] for row in run.history if "pretrain/train/loss" in row]
    assert steps == sorted(set(steps))
    assert len(steps) == 2
    record = here / "runs/t/trial.json"
    metrics = json.loads(record.read_text())["metrics"]
    assert {"trial/pretrain_loss", "trial/finetune_accuracy", "trial/knn_accuracy"} <= metrics.keys()
    assert {name: run.summary[name] for name in metrics} == pytest.approx(metrics)
    record.unlink()
    ((trial,), _) = read_trials([here / "runs"])
    assert (trial.study, trial.metrics) == ("quickstart/figure_5", pytest.approx(metrics))
