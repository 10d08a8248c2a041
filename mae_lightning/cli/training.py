"""``fit``, ``validate`` and ``test``: LightningCLI with a run's folder around it."""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.callbacks import LeftOutSteps, NodeMetrics, default_callbacks
from mae_lightning.callbacks.finite import NonFiniteError
from mae_lightning.callbacks.preemption import MARKER, REQUEUE_CODE, Preempted, Preemption, StopRequest
from mae_lightning.callbacks.time_limits import TimeLimits, Watchdog, outlast
from mae_lightning.cli.arguments import resolve_configs
from mae_lightning.cli.diagnosis import Diagnosis, most_telling_line
from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.cli.launched import with_launched_topology
from mae_lightning.cli.parser import FROM_DATA, ParseError, Parser, parser_options
from mae_lightning.cli.quiet import hush
from mae_lightning.cli.run import CONFIG, LAST_CHECKPOINT, Decision, Progress, Run, decide, default_name, next_recipe
from mae_lightning.cli.saved_config import SavedConfig, changes, plain_settings
from mae_lightning.commands.configs import configs_folder
from mae_lightning.data.resume import is_validation_pending
from mae_lightning.planning.allocator import keep_freed_memory
from mae_lightning.planning.preflight import preflight
from mae_lightning.strategies.durable import DurableCheckpointIO, newest_whole, remove_leftovers
from mae_lightning.tracking import build_loggers
from mae_lightning.weights import is_sharded, read_checkpoint
from mae_lightning.weights.sharded import read_rest

INTERRUPTED = 130


def run_training(command: str, arguments: Sequence[str], allowed_imports: Sequence[str] = ()) -> int:
    """Runs ``fit``, ``validate`` or ``test`` and returns the process's exit code.

    Args:
        command: Which of them.
        arguments: What follows it on the command line.
        allowed_imports: Packages of the user's that configs may name.
    """
    hush()
    request = StopRequest()
    if command == "fit":
        request.listen()
    resolved, configs = resolve_configs(arguments)
    policy = ImportPolicy(allowed_imports)
    code = TrainingCLI(command, resolved, configs, policy, request).run()
    while code is None:
        gc.collect()  # the model of the start before
        code = TrainingCLI(command, resolved, configs, policy, request, is_restart=True).run()
    return code


class TrainingCLI(LightningCLI):
    """Reads the configs, builds model, data and trainer, and runs one command in the run's folder.

    A flat parser for the one command stands in place of LightningCLI's subcommands: keys have no prefix, and the
    hyper-parameters of a checkpoint never change the config.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        arguments: The command line after the command, the configs as paths.
        configs: The paths of the configs, for the run's name.
        policy: What configs may name.
        request: Whether the process was told to go.
        is_restart: Whether this process began the run before, and goes on with it.
    """

    def __init__(
        self,
        command: str,
        arguments: list[str],
        configs: Sequence[Path],
        policy: ImportPolicy,
        request: StopRequest | None = None,
        *,
        is_restart: bool = False,
    ) -> None:
        self.command, self.configs, self.policy, self.request = command, configs, policy, request
        self.is_restart = is_restart
        policy.enforce()
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_defaults={"enable_model_summary": False},  # the run's own table says more
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs=parser_options(command),
            args=arguments,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # ---------------------------------------------------------------- arguments

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's options and what the model takes from the data."""
        parser.add_class_arguments(Run, "run")
        if self.command != "fit":
            parser.add_argument("--ckpt_path", type=str | None, help="Checkpoint to use; the run's last one by default")
        assert isinstance(parser, Parser)
        parser.link_parts()

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the command line and the configs that it names.

        Raises:
            ValueError: A setting does not fit; one line with what would be right.
        """
        diagnosis = Diagnosis(self.command, args, linked=FROM_DATA, policy=self.policy)
        try:
            self.config = parser.parse_args(args)
        except ParseError as error:
            diagnosis.check()
            raise ValueError(most_telling_line(str(error))) from error
        diagnosis.check_parsed(self.config.seed_everything)
        self.given = diagnosis.settings.origins

    # ---------------------------------------------------------------- objects

    def before_instantiate_classes(self) -> None:
        """Settles the run's folder and what happens there, before anything expensive.

        Raises:
            ValueError: The data was given a seed of its own.
        """
        if "data.seed" in self.given:
            raise ValueError("data.init_args.seed follows seed_everything; set --seed_everything instead")
        settings = self.config.run
        settings.name = settings.name or default_name(self.configs, configs_folder())
        self.run_settings = Run.read(settings.as_dict())
        self.folder = self.run_settings.folder
        self.left_out = LeftOutSteps(self.folder)
        again = "goes on from the last checkpoint" if self.command == "fit" else "begins anew"
        self.watchdog = Watchdog(self.run_settings.limits, self.folder, f"the same command {again}")
        derived = [name for name in FROM_DATA if f"model.{name}" not in self.given]
        self.plain_settings = plain_settings(self.config, derived)
        self.last_checkpoint = newest_whole(self.folder / LAST_CHECKPOINT)
        self.decision = self._decide() if self.command == "fit" else None

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer, unless there is nothing left to do."""
        if self.decision is None or self.decision.action != "stop":
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the run's loggers and callbacks beside those of the config.

        Raises:
            ValueError: The model was given by hand what the data owns, or the trainer asks for what is not here.
        """
        for name in FROM_DATA:
            if f"model.{name}" in self.given and hasattr(self.datamodule, name):
                raise ValueError(f"model.init_args.{name} comes from the data; set it under data.init_args instead")
        if self.command == "fit":
            preflight(self.model, self.datamodule, self.plain_settings["trainer"], self.folder)
        settings = {**self._get(self.config_init, "trainer"), **kwargs}
        settings["logger"] = self._loggers(settings["logger"])
        settings["default_root_dir"] = settings["default_root_dir"] or self.folder
        settings["plugins"] = with_durable_checkpoints(settings["plugins"])
        settings = with_launched_topology(settings, os.environ)
        own = default_callbacks(self.folder, self.model, next_recipe(self.configs))
        if self.command == "fit" and not self.config.trainer.fast_dev_run:
            own.append(SavedConfig(self.plain_settings, self.folder / CONFIG))
            if self.run_settings.node_metrics:
                own.append(NodeMetrics(self.run_settings.project))
            own.append(Preemption(self.folder, self.folder / LAST_CHECKPOINT, self.request))
        if self.command == "fit":
            own.append(self.left_out)
        own.append(TimeLimits(self.watchdog))
        try:
            return self._instantiate_trainer(settings, without_replaced(own, settings["callbacks"]))
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise ValueError(f"trainer: {error} (see configs/trainer, --config trainer/cpu for no GPU)") from error

    def _loggers(self, configured: Logger | list[Logger] | bool | None) -> Logger | list[Logger] | bool:
        """The config's loggers, or the run's where it names none; only training keeps a record."""
        if isinstance(configured, Logger | list):
            return configured
        if configured is False or self.command != "fit" or self.config.trainer.fast_dev_run:
            return False
        run = self.run_settings
        return build_loggers(self.folder, self.folder.name, run.project, run.wandb, node_metrics=run.node_metrics)

    def _decide(self) -> Decision:
        """What ``fit`` does in the folder; processes other than the first find it used and do not mind."""
        if self.config.trainer.fast_dev_run:
            return Decision("start", f"{self.folder}: a trial of a few batches, nothing is kept")
        last = self.last_checkpoint
        return decide(
            self.folder,
            "auto" if self.is_restart else self.run_settings.resume,
            saved=read_progress(last) if last is not None else None,
            is_used=getattr(rank_zero_only, "rank", 0) == 0 and (last is not None or (self.folder / CONFIG).is_file()),
            changed=changes(self.folder / CONFIG, self.plain_settings),
            max_epochs=self.config.trainer.max_epochs,
            max_steps=self.config.trainer.max_steps,
        )

    # ---------------------------------------------------------------- running

    def run(self) -> int | None:
        """Runs the command and returns the process's exit code; None if it is to go on from the last checkpoint."""
        if self.decision is not None:
            rank_zero_only(print)(self.decision.line, flush=True)
            if self.decision.action == "stop":
                rank_zero_only((self.folder / MARKER).unlink)(missing_ok=True)  # a launcher need not start it again
                return 0
        outlast(self.trainer.strategy, self.run_settings.limits)
        try:
            with self.watchdog:
                getattr(self, f"_{self.command}")()
        except NonFiniteError as error:
            if self.run_settings.recover == "stop":
                raise
            self.left_out.add(self.trainer, self.model, error)
            self.datamodule.teardown("fit")
            return None
        except Preempted:
            return REQUEUE_CODE
        except SystemExit:
            if not self.trainer.interrupted:
                raise
            goes_on = self.command == "fit" and (self.folder / LAST_CHECKPOINT).exists()
            hint = f"; the same command goes on from {self.folder / LAST_CHECKPOINT}" if goes_on else ""
            print(f"interrupted{hint}", file=sys.stderr)
            return INTERRUPTED
        return 0

    def _fit(self) -> None:
        assert self.decision is not None
        last = self.last_checkpoint if self.decision.action == "continue" else None
        rank_zero_only(remove_leftovers)(self.folder, (self.folder / LAST_CHECKPOINT).parent)
        if isinstance(self.trainer.accelerator, CPUAccelerator):
            keep_freed_memory()
        self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=last, weights_only=True)

    def _validate(self) -> None:
        self.trainer.validate(self.model, datamodule=self.datamodule, ckpt_path=self._checkpoint(), weights_only=True)

    def _test(self) -> None:
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=self._checkpoint(), weights_only=True)

    def _checkpoint(self) -> str | None:
        """The checkpoint to use: the one named, else the run's last, else none if the model starts from given weights.

        Raises:
            FileNotFoundError: It is not there.
        """
        path = Path(self.config.ckpt_path or self.last_checkpoint or self.folder / LAST_CHECKPOINT)
        init_from = self.config.model.init_args.get("init_from")
        if not path.exists() and (self.config.ckpt_path or init_from is None):
            raise FileNotFoundError(f"checkpoint {path} does not exist; train with fit first, or give --ckpt_path=FILE")
        rank_zero_only(print)(f"{self.command}: {path if path.exists() else init_from}", flush=True)
        return str(path) if path.exists() else None


def with_durable_checkpoints(configured: Any) -> list[Any]:
    """The config's plugins, and ours for writing checkpoints unless one of those does it."""
    given = configured if isinstance(configured, list) else [configured] if configured is not None else []
    return given if any(isinstance(plugin, CheckpointIO) for plugin in given) else [*given, DurableCheckpointIO()]


def without_replaced(own: Sequence[Callback], configured: Sequence[Callback] | Callback | None) -> list[Callback]:
    """Our callbacks, without those that the config has one of the same class for.

    Checkpoints are added to ours: a run always has its last one.
    """
    given = [configured] if isinstance(configured, Callback) else configured or []
    replaced = {type(callback) for callback in given if not isinstance(callback, Checkpoint)}
    return [callback for callback in own if type(callback) not in replaced]


def read_progress(checkpoint: Path) -> Progress:
    """How far a checkpoint got.

    Raises:
        ValueError: It is damaged, or holds no training state.
    """
    content = read_rest(checkpoint) if is_sharded(checkpoint) else read_checkpoint(checkpoint)
    try:
        epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        return Progress(int(epochs), int(content["global_step"]), is_validation_pending(content))
    except KeyError as error:
        raise ValueError(
            f"checkpoint {checkpoint} holds no training state to go on from; take another --run.name"
        ) from error
