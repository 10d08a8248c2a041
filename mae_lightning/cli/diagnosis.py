"""Which setting does not fit, in one line.

jsonargparse reports a misspelt key below fifty lines of attempts. Here the settings are walked against the signatures
of the classes they belong to; the first one that does not fit, at whatever depth, is named with what would be right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from mae_lightning.cli.classes import (
    argument_types,
    classes_in,
    find_class,
    null_by_default,
    required_arguments,
    suits,
    wording,
)
from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.cli.run import Run
from mae_lightning.cli.settings import NULL, SPEC, Settings, is_config_name, merged, read_settings
from mae_lightning.commands.spelling import nearest

COMPONENTS: dict[str, type] = {"model": LightningModule, "data": LightningDataModule}
GROUPS: dict[str, type] = {"trainer": Trainer, "run": Run}
VALUES: dict[str, Any] = {"seed_everything": bool | int, "ckpt_path": str | None}
NOT_FOR_FIT = "fit goes on from its own run; to start from other weights, set model.init_args.init_from"
BARE_WORD = "; a bare on, off, yes or no is true or false in YAML: put it in quotes"
MAX_SEED = 2**32 - 1


class SettingError(ValueError):
    """A setting does not fit.

    Attributes:
        key: Its dotted key.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Diagnosis:
    """Compares settings with the signatures they are meant for.

    Args:
        command: ``fit`` or another.
        arguments: The command line after it.
        linked: Arguments of the model's that come from the data.
        policy: What configs may name: nothing else is imported, not even for a better message.

    Raises:
        ValueError: A config cannot be read.
    """

    def __init__(self, command: str, arguments: Sequence[str], *, linked: Sequence[str], policy: ImportPolicy) -> None:
        self.settings: Settings = read_settings(arguments)
        self.command, self.linked, self.policy = command, linked, policy

    def check_parsed(self, seed: bool | int | None) -> None:
        """Looks at what jsonargparse lets pass: null for any setting, and seeds that numpy does not take.

        Raises:
            ValueError: The first setting that does not fit, and what would be right.
        """
        try:
            if self.settings.nulls:
                self.check()
        except SettingError as error:
            if self.settings.was_null(error.key):  # of everything else jsonargparse knows more
                raise
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise self._error("seed_everything", f"expected 0 to {MAX_SEED}, not {seed}")

    def check(self) -> None:
        """Goes through everything.

        Raises:
            ValueError: The first setting that does not fit, and what would be right.
        """
        tree = self.settings.tree
        known = [*COMPONENTS, *GROUPS, *VALUES]
        for name in tree:
            if name not in known:
                hint = nearest(name, known, "there are " + ", ".join(known))
                raise self._error(name, f"there is no such setting{hint}")
        if self.command == "fit" and "ckpt_path" in tree:
            raise self._error("ckpt_path", NOT_FOR_FIT)
        for name, base in COMPONENTS.items():
            if tree.get(name) is None:
                raise ValueError(f"no {name} is given; name a recipe, such as --config quickstart/pretrain")
            self._component(name, tree[name], base)
        for name, group in GROUPS.items():
            if name in self.settings.nulls:  # whatever was laid over it, jsonargparse has lost the defaults
                problem = f"expected the arguments of {group.__name__}, not null"
                raise self._error(name, problem, self.settings.nulls[name])
            self._arguments(name, tree.get(name, {}), group)
        for name, annotation in VALUES.items():
            if name in tree and not suits(annotation, tree[name]):
                raise self._error(name, f"expected {wording(annotation)}, not {_shown(tree[name])}")

    def _error(self, key: str, problem: str, origin: str | None = None) -> SettingError:
        """The error for a setting, with the file that has it."""
        origin = self.settings.origin(key) if origin is None else origin
        return SettingError(key, f"{key}: {problem}" + (f" (in {origin})" if origin else ""))

    def _component(self, key: str, value: Any, base: type) -> None:
        """A class named by the user, and its arguments."""
        if is_config_name(value):
            raise self._error(key, f"config file {value} does not exist")
        spec: Any = {"class_path": value} if isinstance(value, str) else value
        if not isinstance(spec, Mapping) or not isinstance(spec.get("class_path"), str):
            raise self._error(key, f"expected class_path and init_args, not {_shown(value)}")
        try:
            kind = find_class(spec["class_path"], base, self.policy)
        except ValueError as error:
            raise self._error(f"{key}.class_path", str(error)) from error
        given = dict(spec.get("init_args") or {})
        for name in spec.keys() - SPEC:
            if self.settings.origin(f"{key}.{name}"):
                raise self._error(f"{key}.{name}", "belongs under init_args, beside class_path")
            given = merged(given, {name: spec[name]})  # the command line may leave init_args out
        self._arguments(f"{key}.init_args", given, kind, self.linked if base is LightningModule else ())

    def _arguments(self, key: str, given: Any, kind: type, linked: Sequence[str] = ()) -> None:
        """The arguments of one class: their names, that none is missing, their values."""
        if not isinstance(given, Mapping):
            raise self._error(key, f"expected the arguments of {kind.__name__}, not {_shown(given)}")
        types, nullable = argument_types(kind), null_by_default(kind)
        for name in given:
            if name not in types:
                hint = nearest(name, types, "it takes " + (", ".join(types) or "none"))
                raise self._error(f"{key}.{name}", f"{kind.__name__} has no such argument{hint}")
        for name in required_arguments(kind):
            if name not in given and name not in linked:
                raise self._error(f"{key}.{name}", f"is missing; {kind.__name__} needs {wording(types[name])}")
        for name, value in given.items():
            if not suits(types[name], value) and not (value is None and name in nullable):
                self._look_inside(f"{key}.{name}", value, classes_in(types[name]))
                hint = BARE_WORD if isinstance(value, bool) and "'" in wording(types[name]) else ""
                raise self._error(f"{key}.{name}", f"expected {wording(types[name])}, not {_shown(value)}{hint}")

    def _look_inside(self, key: str, value: Any, classes: Sequence[type]) -> None:
        """The parts of a value that does not suit, for a nearer reason."""
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping) and "class_path" in item:
                self._component(key, item, classes[0] if classes else object)
            elif classes and isinstance(item, str) and item != NULL and item.replace(".", "").isidentifier():
                self._component(key, item, classes[0])
            elif classes and isinstance(item, Mapping):
                self._arguments(key, item, classes[0])


def _shown(value: Any) -> str:
    """A value as the user may have written it."""
    return NULL if value is None else repr(value)


def most_telling_line(message: str) -> str:
    """The innermost complaint of a long message, for what the walk does not find."""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines() if line.strip()]
    noise = ("Given value", "Subtypes", "Errors", "Parser key")
    complaints = [line for line in lines if not line.startswith(noise)]
    return (complaints or lines or ["the arguments do not fit"])[-1]
