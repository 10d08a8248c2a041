"""config.yaml in the run's folder: everything that was set, without secrets."""

import inspect
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from mae_lightning import __version__
from mae_lightning.cli.secrets import redact
from mae_lightning.cli.settings import flattened

DECISIVE = (
    "model.",
    "data.class_path",
    "data.image_size",
    "data.global_batch_size",
    "seed_everything",
    "data.augmentation",
)
"""The settings that a run cannot change half-way without becoming another run."""


class SavedConfig(Callback):
    """Writes the whole config once the data is found to be there, so that a failed start leaves no trace.

    Args:
        settings: The whole config, as `plain_settings` gives it.
        path: The file.
    """

    def __init__(self, settings: dict[str, Any], path: Path) -> None:
        self.settings, self.path = settings, path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes, on the first process."""
        if trainer.is_global_zero:
            text = yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"# mae-lightning {__version__}\n{text}")


def plain_settings(config: Namespace, derived: Collection[str]) -> dict[str, Any]:
    """A parsed config as plain values without secrets.

    jsonargparse's own dump refuses configs that it has read, such as those with an enumeration for a default.

    Args:
        config: What was parsed.
        derived: Arguments of the model's that are taken from the data, and so left out.
    """
    given = {name: value for name, value in vars(config.clone(with_meta=False)).items() if name != "config"}
    settings: dict[str, Any] = redact(_plain(given))
    arguments = settings["model"].get("init_args") or {}
    settings["model"]["init_args"] = {name: value for name, value in arguments.items() if name not in derived}
    (settings["data"].get("init_args") or {}).pop("seed", None)  # seed_everything says it
    return settings


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if inspect.isclass(value) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def first_change(path: Path, settings: Mapping[str, Any]) -> str | None:
    """The first decisive setting that differs from a saved config, in words; None if none does or nothing is saved."""
    if not path.is_file():
        return None
    before, now = dict(flattened(yaml.safe_load(path.read_text()))), dict(flattened(settings))
    for key, old in before.items():
        is_decisive = key.startswith(DECISIVE) and key in now and not isinstance(old, dict)
        if is_decisive and old != now[key]:
            return f"{key} was {old}, is now {now[key]}"
    return None
