"""Recipes and overlays read as ``fit`` reads them, without a Trainer and without touching a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from mae_lightning.cli.arguments import resolve_configs
from mae_lightning.cli.diagnosis import Diagnosis, most_telling_line
from mae_lightning.cli.errors import causes
from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.cli.parser import FROM_DATA, ParseError, Parser
from mae_lightning.cli.run import Run
from mae_lightning.cli.saved_config import plain_settings
from mae_lightning.planning.setting import DataFacts
from mae_lightning.tasks import Task


@dataclass(frozen=True)
class Configured:
    """What a run was asked for.

    Attributes:
        parsed: All settings with their defaults, as jsonargparse gives them.
    """

    parsed: Namespace

    @property
    def plain(self) -> dict[str, Any]:
        """All settings as plain values without secrets; what the model takes from the data is left out."""
        return plain_settings(self.parsed, FROM_DATA)

    @property
    def data(self) -> dict[str, Any]:
        """The plain arguments of the data module."""
        arguments: dict[str, Any] = self.plain["data"].get("init_args") or {}
        return arguments

    @property
    def model(self) -> dict[str, Any]:
        """The plain arguments of the model."""
        arguments: dict[str, Any] = self.plain["model"].get("init_args") or {}
        return arguments

    @property
    def trainer(self) -> dict[str, Any]:
        """The plain arguments of the Trainer: devices, num_nodes, precision, strategy, max_epochs and so on."""
        settings: dict[str, Any] = self.plain["trainer"]
        return settings

    @property
    def run(self) -> Run:
        """The run's folder; its name is that of the config, if it has one."""
        return Run.read(self.parsed.run.as_dict())

    @property
    def seed(self) -> int:
        """Of order, augmentation and masks."""
        return int(self.parsed.seed_everything)

    def build_data(self) -> LightningDataModule:
        """The data module; opens the data.

        Raises:
            FileNotFoundError: The data are not there.
            ValueError: They are unfit.
        """
        data: LightningDataModule = _part("data", LightningDataModule, self.parsed.data)
        return data

    def facts_without_data(self, command: str, num_classes: int | None, num_images: int | None = None) -> DataFacts:
        """What a model takes from data, where they are not here, as far as the config says it; else three channels.

        Args:
            command: Who asks, for the error.
            num_classes: Of the labels, which no config says.
            num_images: Of the data, likewise.

        Raises:
            ValueError: The config does not say the images' size or the batch's.
        """
        data = self.data
        if "image_size" not in data or "global_batch_size" not in data:
            raise ValueError(
                f"{command} needs data.init_args.image_size and global_batch_size, as ShardDataModule has them"
            )
        size = data["image_size"]
        return DataFacts(
            image_size=(size, size) if isinstance(size, int) else (size[0], size[1]),
            num_channels=data.get("num_channels") or 3,
            num_classes=num_classes,
            global_batch_size=data["global_batch_size"],
            seed=self.seed,
            num_images=num_images
            and int(num_images * (1 - data["hold_out"]) * data["label_fraction"]) * data["repeats"],
        )

    def build_model(self, data: object, device: str = "meta", *, load: bool = False) -> Task:
        """The model, with what the data owns.

        Args:
            data: The data module, or anything with those of its attributes that `FROM_DATA` names.
            device: Where the parameters lie; ``meta`` takes no memory.
            load: Whether to read the weights that it is to start from, which then have to be there.

        Raises:
            ValueError: A setting does not fit, or the model is none of this package's.
        """
        spec = self.parsed.model.clone()
        owned = {name: getattr(data, name) for name in FROM_DATA if name in spec.init_args and hasattr(data, name)}
        if not load and "init_from" in spec.init_args:
            owned["init_from"] = None
        spec.init_args.update(Namespace(**owned))  # type: ignore[no-untyped-call]
        with torch.device(device):
            model = _part("model", LightningModule, spec)
        if not isinstance(model, Task):
            raise ValueError(f"model {spec.class_path} is no task of this package")
        return model


def read_configured(arguments: Sequence[str], policy: ImportPolicy | None = None) -> Configured:
    """Reads what would follow ``fit`` on the command line.

    Args:
        arguments: ``--config=NAME`` and ``--key=value`` in their order.
        policy: What configs may name.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: A setting does not fit; one line with what would be right.
    """
    policy = policy or ImportPolicy()
    policy.enforce()
    resolved, _ = resolve_configs(arguments)
    diagnosis = Diagnosis("fit", resolved, linked=FROM_DATA, policy=policy)
    try:
        configured = Configured(_parser().parse_args(resolved))
    except ParseError as error:
        diagnosis.check()
        raise ValueError(most_telling_line(str(error))) from error
    diagnosis.check_parsed(configured.seed)
    return configured


def _parser() -> Parser:
    """Takes what ``fit`` takes."""
    parser = Parser(prog="mae-lightning", allow_abbrev=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_class_arguments(Run, "run")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.link_parts()
    return parser


def _part(name: str, base: type, spec: Namespace) -> Any:
    """Builds one part of the settings, the others not."""
    parser = Parser(prog="mae-lightning", allow_abbrev=False)
    parser.add_lightning_class_args(base, name, subclass_mode=True)
    try:
        return parser.instantiate(Namespace(**{name: spec}))[name]  # type: ignore[no-untyped-call]
    except ValueError as error:
        missing = next((link for link in causes(error) if isinstance(link, FileNotFoundError)), None)
        if missing is not None:
            raise missing from None
        raise
