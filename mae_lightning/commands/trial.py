"""``trial``: pretraining, then fine-tuning or probing, then evaluation, as one run with one id and fixed figures."""

import argparse
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_lightning.commands import OneLineParser
from mae_lightning.commands.stages import (
    CHECKPOINT,
    EVERY,
    RECORD,
    STAGES,
    TRAINED,
    Setting,
    Stage,
    StageRecord,
    parse_settings,
    permissions,
    read_json,
    run_program,
    short_digest,
    sole_worker,
    terminable,
    write_json,
)
from mae_lightning.secrets import redact

if TYPE_CHECKING:
    from mae_lightning.tracking.trial_board import TrialBoard

TRIAL = "trial.json"

EPILOG = """\
settings, any number:
  --STAGE.KEY=VALUE      a setting of a stage as fit (or evaluate) takes it: --pretrain.model.init_args.mask_ratio=0.5
  --STAGE.config=CONFIG  lay a config over the stage's recipe, or several joined by +; 'none' is no overlay
  --all.KEY=VALUE        the same for pretrain, finetune and probe: --all.trainer.devices=8, --all.config=trainer/cpu

The trial's folder holds a folder and a log for each stage and trial.json with its figures: trial/finetune_accuracy,
trial/probe_accuracy, trial/knn_accuracy, trial/few_shot_accuracy, trial/linear_accuracy, trial/pretrain_seconds, ...
The same command goes on where it was stopped. It is one run on Weights & Biases, however many processes its stages
have; inside wandb agent it is the agent's run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pretrain", metavar="RECIPE", help="first stage: its encoder goes to the others")
    parser.add_argument("--finetune", metavar="RECIPE", help="from the pretrained encoder, or the recipe's init_from")
    parser.add_argument("--probe", metavar="RECIPE", help="likewise")
    parser.add_argument(
        "--evaluate",
        metavar="PROTOCOLS",
        help="of the frozen encoder, pretrained or else trained: few_shot,knn",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every stage (default: 0)")
    parser.add_argument(
        "--study", metavar="NAME", help="table or figure it belongs to, for report: quickstart/table_1c"
    )
    parser.add_argument("--share", action="store_true", help="trials of equal pretraining in one --run.dir share it")
    parser.add_argument("--launcher", default="", help="of training, in place of python: 'torchrun --nproc-per-node 8'")
    parser.add_argument("--run.name", dest="name", help="folder's name (default: after the recipe and the settings)")
    parser.add_argument("--run.dir", dest="dir", default="runs", type=Path, help="where it lies (default: runs)")
    parser.add_argument("--run.project", dest="project", default="mae-lightning", help="on Weights & Biases")
    parser.add_argument(
        "--run.wandb", dest="wandb", choices=("auto", "online", "offline", "off"), default="auto", help="as in fit"
    )


@dataclass(frozen=True)
class Trial:
    """What is to be run, and where.

    Attributes:
        stages: In their order.
        seed: Of every stage.
        study: The table or figure it belongs to.
        folder: The trial's own.
        shared: Where shared pretraining lies; None to share nothing.
        launcher: What starts a stage.
    """

    stages: tuple[Stage, ...]
    seed: int
    study: str | None
    folder: Path
    shared: Path | None
    launcher: str

    @property
    def parameters(self) -> dict[str, str]:
        """Every setting by its dotted name, and the recipes; several overlays are joined by ``+``, secrets hidden."""
        found = {"seed": str(self.seed)}
        for stage in self.stages:
            found[stage.name] = stage.recipe
            for key, value in stage.settings:
                name = f"{stage.name}.{key}"
                found[name] = f"{found[name]}+{value}" if key == "config" and name in found else value
        return dict(redact(found))

    def place(self, stage: Stage) -> Path:
        """The folder of one of the stages."""
        if self.shared is not None and stage.name == "pretrain":
            return self.shared / f"pretrain-{short_digest([stage.digest, self.seed])}"
        return self.folder / stage.name


def run(args: argparse.Namespace) -> int:
    """Runs what is missing of the trial.

    Raises:
        ValueError: The settings do not fit, a stage failed, the folder holds another trial, or several processes were
            started for one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "start a trial once, without a launcher: its stages start their own processes; "
            "give --all.trainer.devices=8, or --launcher 'torchrun --nproc-per-node 8'"
        )
    args.settings += permissions(args.allowed_imports)
    trial = plan(args)
    check_study(trial.study)
    check_folder(trial)
    with terminable():
        record = _Execution(trial, _board(args, trial)).run()
    for name, value in record["metrics"].items():
        print(f"  {name:<36}{value:.4f}")
    print(f"{trial.folder / TRIAL}: finished")
    return 0


def parse(words: Sequence[str]) -> Trial:
    """The trial that a command line asks for.

    Args:
        words: What follows ``trial``.

    Raises:
        ValueError: It does not fit; one line with what would be right.
    """
    parser = OneLineParser(prog="mae-lightning trial")
    add_arguments(parser)
    args, settings = parser.parse_known_args(words)
    args.settings = settings
    return plan(args)


def plan(args: argparse.Namespace) -> Trial:
    """The trial that the arguments ask for.

    Raises:
        ValueError: A setting is for a stage that is not run, or nothing is to be run.
    """
    settings = parse_settings(args.settings)
    asked = [name for name in STAGES if getattr(args, name)]
    if not asked:
        raise ValueError("trial: nothing to run; give --pretrain=RECIPE, --finetune=RECIPE, --probe=RECIPE")
    for name in settings:
        if name != EVERY and name not in asked:
            raise ValueError(f"trial: --{name}.{settings[name][0][0]} is for a stage that is not run; add --{name}=...")
    stages = tuple(Stage(name, getattr(args, name), tuple(_settings(settings, name))) for name in asked)
    name = args.name or default_name(stages, args.seed)
    shared = args.dir / "shared" if args.share else None
    return Trial(stages, args.seed, args.study, args.dir / name, shared, args.launcher)


def _settings(settings: dict[str, list[Setting]], stage: str) -> list[Setting]:
    everywhere = settings.get(EVERY, []) if stage in TRAINED else []
    return [*everywhere, *settings.get(stage, [])]


def default_name(stages: tuple[Stage, ...], seed: int) -> str:
    """After the first recipe, with a digest of everything that was asked for."""
    recipe = re.sub(r"[^\w.-]+", "-", stages[0].recipe.removesuffix(".yaml")).strip("-.")
    return f"{recipe}-{short_digest([*(stage.digest for stage in stages), seed])}"


def check_study(name: str | None) -> None:
    """Makes sure that report will know the study.

    Raises:
        ValueError: There is none of that name.
    """
    if name is not None:
        from mae_lightning.tracking.studies import find_study

        find_study(name)


def check_folder(trial: Trial) -> None:
    """Makes sure that what the trial's folder holds is of this very trial; stages may be added.

    Raises:
        ValueError: The seed, a stage's settings or the encoder that it started from are others.
    """
    path = trial.folder / TRIAL
    old: dict[str, Any] = read_json(path) if path.is_file() else {"seed": trial.seed, "parameters": {}}
    before = {name: Path(name) for name in TRAINED if name in old["parameters"]}
    now = {stage.name: Path(stage.name) for stage in trial.stages if stage.name in TRAINED}
    fits = int(old["seed"]) == trial.seed
    for stage in trial.stages:
        record = StageRecord.read(trial.place(stage))
        if record is not None:
            fits &= record.digest == stage.digest
            fits &= stage.name not in old["parameters"] or _encoder_for(stage, before) == _encoder_for(stage, now)
    if not fits:
        raise ValueError(f"{trial.folder} holds a trial of other settings; take another --run.name")


def _board(args: argparse.Namespace, trial: Trial) -> "TrialBoard | None":
    if args.wandb == "off":
        return None
    from mae_lightning.tracking.trial_board import TrialBoard

    return TrialBoard(trial.folder, args.project, args.wandb, trial.parameters, trial.study)


def _encoder_for(stage: Stage, trained: Mapping[str, Path]) -> Path | None:
    """The checkpoint that a stage works on: the pretrained one; evaluation falls back on the last that was trained."""
    if stage.name == "evaluate" and trained:
        return trained.get("pretrain", list(trained.values())[-1])
    return trained.get("pretrain")


class _Execution:
    """One pass over a trial's stages."""

    def __init__(self, trial: Trial, board: "TrialBoard | None") -> None:
        self.trial, self.board = trial, board

    def run(self) -> dict[str, Any]:
        """Runs the stages that are not finished, and returns the trial's record."""
        from mae_lightning.tracking.provenance import code_version

        trial = self.trial
        record: dict[str, Any] = {
            "study": trial.study,
            "seed": trial.seed,
            "parameters": trial.parameters,
            "code": code_version(),
            "finished": False,
            "metrics": {},
            "draws": {},
            "stages": {},
        }
        write_json(trial.folder / TRIAL, record)
        encoders: dict[str, Path] = {}
        for stage in trial.stages:
            folder = trial.place(stage)
            done = self._stage(stage, folder, _encoder_for(stage, encoders))
            encoders[stage.name] = folder / CHECKPOINT
            figures = dict(done.figures or {})
            record["draws"] |= figures.pop("draws", {})
            record["metrics"] |= {f"trial/{name}": value for name, value in figures.items()}
            place = os.path.relpath(folder, trial.folder)
            record["stages"][stage.name] = {"folder": place, "seconds": done.seconds, **(done.provenance or {})}
            write_json(trial.folder / TRIAL, record)
        record["finished"] = True
        write_json(trial.folder / TRIAL, record)
        if self.board is not None:
            self.board.finish(record)
        return record

    def _stage(self, stage: Stage, folder: Path, encoder: Path | None) -> StageRecord:
        """The stage's record, after running what is missing of it."""
        with sole_worker(folder) as lock:
            record = StageRecord.read(folder) or StageRecord(stage.digest)
            if record.digest != stage.digest:
                raise ValueError(f"{folder / RECORD} is of a stage with other settings; take another --run.name")
            if record.finished:
                print(f"{stage.name}: finished before, {folder}", flush=True)
            else:
                record.write(folder)
                record = self._run(stage, folder, encoder, record, lock)
        self._watch(stage, folder)
        return record

    def _run(self, stage: Stage, folder: Path, encoder: Path | None, record: StageRecord, lock: int) -> StageRecord:
        from mae_lightning.tracking.stage_figures import read_stage

        log = folder.with_name(f"{folder.name}.log")
        print(f"{stage.name}: {folder}, log {log}", flush=True)
        words, start = stage.command(folder, self.trial.seed, encoder), time.monotonic()
        try:
            launcher = self.trial.launcher if stage.name in TRAINED else ""  # evaluation is one process
            run_program(words, log, launcher, lock, lambda: self._watch(stage, folder))
        finally:
            record = replace(record, seconds=record.seconds + time.monotonic() - start)
            record.write(folder)
        figures, provenance = read_stage(stage.name, folder)
        figures[f"{stage.name}_seconds"] = record.seconds
        record = replace(record, finished=True, figures=figures, provenance=provenance)
        record.write(folder)
        return record

    def _watch(self, stage: Stage, folder: Path) -> None:
        """Shows on Weights & Biases what the stage has logged since."""
        if self.board is not None and stage.name in TRAINED:
            self.board.show(stage.name, folder)
