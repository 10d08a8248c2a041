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
from mae_lightning.cli.settings import flattened
from mae_lightning.secrets import redact

DECISIVE = (
    "model.",
    "data.class_path",
    "data.image_size",
    "data.global_batch_size",
    "seed_everything",
    "data.augmentation",
    "data.decoder",
    "trainer.gradient_clip",
)
"""The settings that a run cannot change half-way without becoming another run."""
NAMED, LONGEST = 8, 60
"""Most changes that a message names, and most characters of a value in it."""


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


def changes(path: Path, settings: Mapping[str, Any]) -> str | None:
    """The decisive settings that differ from a saved config, as ``key: was -> is now``.

    Settings that only one of the two has are those of another version or class, and no change of their own.

    Returns:
        None if none differs or nothing is saved.
    """
    if not path.is_file():
        return None
    before, now = dict(flattened(yaml.safe_load(path.read_text()))), dict(flattened(settings))
    found = [
        f"{key}: {_short(old)} -> {_short(now[key])}"
        for key, old in before.items()
        if key.startswith(DECISIVE) and key in now and old != now[key] and not _are_parts(old, now[key])
    ]
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return "; ".join([*found[:NAMED], *more]) or None


def _are_parts(old: Any, new: Any) -> bool:
    """Whether both are nested, so that their own settings are compared."""
    return isinstance(old, dict) and isinstance(new, dict)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
