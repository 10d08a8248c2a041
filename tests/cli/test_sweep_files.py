"""Every shipped sweep file as W&B's own agent runs it: the commands fit, and the swept values reach the model."""

from functools import cache
from pathlib import Path

import pytest
import wandb.wandb_agent
import yaml

from mae_lightning.cli.arguments import resolve_configs
from mae_lightning.cli.diagnosis import Diagnosis
from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.cli.settings import read_settings
from mae_lightning.cli.training import FROM_DATA
from mae_lightning.commands import OneLineParser
from mae_lightning.commands.evaluate import add_arguments
from mae_lightning.commands.stages import TRAINED
from mae_lightning.commands.sweep_file import read_sweep
from mae_lightning.commands.trial import parse
from mae_lightning.tracking.studies import STUDIES, find_study
from mae_lightning.tracking.trials import short_key

SWEEPS = Path(__file__).parents[2] / "configs/sweeps"
FILES = sorted(SWEEPS.rglob("*.yaml"))
EXAMPLE = 0.001


def combinations(content):
    """Each value of a grid once, with the last seed; of a random search one example."""
    found = []
    for name, parameter in content["parameters"].items():
        if name != "seed":
            values = parameter.get("values", [EXAMPLE])
            found += [{"seed": content["parameters"]["seed"]["values"][-1], name: value} for value in values]
    return found


@pytest.fixture
def agent_command(monkeypatch, tmp_path):
    """What W&B's agent starts for a combination of values."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUN_ID", "SWEEP_ID", "SWEEP_PARAM_PATH", "DIR"):  # what the agent sets is taken back at the end
        monkeypatch.setenv(f"WANDB_{name}", "before")
    started = []
    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", lambda **options: started.append(options) or Dead())

    class Dead:
        last_sigterm_time = None

    def build(content, values):
        agent = object.__new__(wandb.wandb_agent.Agent)
        agent._sweep_command = list(content["command"])
        agent._in_jupyter, agent._function, agent._forward_signals, agent._run_processes = False, None, False, {}
        arguments = {name: {"value": value} for name, value in values.items()}
        agent._command_run({"run_id": "abc", "program": content["program"], "args": arguments})
        return started[-1]["command"]

    return build


def test_each_study_has_a_file_at_both_scales():
    names = {path.relative_to(SWEEPS).with_suffix("").as_posix() for path in FILES}
    assert names == {f"{scale}/{study}" for scale in ("quickstart", "imagenet") for study in STUDIES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SWEEPS).as_posix())
def test_agents_commands_are_accepted_and_their_values_arrive(path, agent_command):
    content = yaml.safe_load(path.read_text())
    assert content["metric"]["name"].startswith("trial/")
    for values in combinations(content):
        command = agent_command(content, values)
        assert command[:5] == ["/usr/bin/env", "python", "-m", "mae_lightning", "trial"]
        assert command[5:] == read_sweep(path).words(values)
        trial = parse(command[5:])
        assert trial.study == path.relative_to(SWEEPS).with_suffix("").as_posix()
        assert trial.seed == values["seed"]
        assert "***" not in " ".join([*trial.parameters.values(), str(trial.folder)])
        check_stages(trial, values)
    study, _ = find_study(trial.study)
    assert study.axis in {short_key(name) for name in content["parameters"]}


def check_stages(trial, values):
    """The stages' own commands pass fit's checks and hold the values at their places."""
    for stage in trial.stages:
        if stage.name not in TRAINED:
            parser = OneLineParser()
            add_arguments(parser)
            args = parser.parse_args(stage.command(Path("e"), 7, Path("p.ckpt"))[1:])
            assert (args.encoders, args.seed, args.classes is None) == (["p.ckpt"], 0, False)
            continue
        arguments, _ = resolve_configs(stage.command(Path("t") / stage.name, trial.seed, Path("p.ckpt"))[1:])
        check(tuple(arguments))
        tree = read_settings(arguments).tree
        assert str(tree["seed_everything"]) == str(values["seed"])
        for name, value in values.items():
            owner, _, key = name.partition(".")
            if owner == stage.name and key != "config":
                for part in key.split("."):
                    tree = tree[part]
                assert tree == str(value)
            elif owner == stage.name and value != "none":
                overlays = [f"ablations/{part.split('/')[1]}.yaml" for part in value.split("+")]
                named = [word for word in arguments if word.startswith("--config=")]
                assert ["/".join(Path(word).parts[-2:]) for word in named[1:]] == overlays


@cache
def check(arguments):
    Diagnosis("fit", arguments, linked=FROM_DATA, policy=ImportPolicy()).check()


@pytest.mark.parametrize("scale", ["quickstart", "imagenet"])
def test_rows_of_the_studies_are_what_the_files_sweep(scale):
    for name, study in STUDIES.items():
        content = yaml.safe_load((SWEEPS / scale / f"{name}.yaml").read_text())
        (axis,) = [key for key in content["parameters"] if short_key(key) == study.axis]
        small = scale == "quickstart"
        rows = [row.small if small and row.small is not None else row.value for row in study.rows]
        swept = content["parameters"][axis].get("values", [])
        assert [value for value in swept if rows and value not in rows] == []
