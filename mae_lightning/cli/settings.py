"""Configs and command line as one tree of plain values, to find out which of them does not fit.

jsonargparse does the real reading. This reads the same files in the same order once more, and keeps the origin of each
setting for the message.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

COMMAND_LINE = ""
NULL = "null"
SPEC = {"class_path", "init_args", "dict_kwargs"}
"""What a class is described by in a config."""
FLAGS_WITHOUT_SETTING = ("--help", "-h", "--print_config")


@dataclass
class Settings:
    """What was asked for, merged.

    Attributes:
        tree: Nested as in a config.
        origins: The file that each setting was last named in, by its dotted key; the command line is the empty string.
        nulls: Where a setting was null, by its dotted key, also if something was laid over it later.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    nulls: dict[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """The file that names a setting, or the nearest thing above it; empty for the command line."""
        parts = _short(key).split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.origins[prefix] for prefix in prefixes if prefix in self.origins), COMMAND_LINE)

    def was_null(self, key: str) -> bool:
        """Whether a setting was null at some point."""
        return _short(key) in self.nulls

    def merge(self, new: dict[str, Any], origin: str) -> None:
        """Lays settings over the ones so far."""
        self.tree = merged(self.tree, new)
        for key, value in flattened(new):
            if not isinstance(value, dict):
                self.origins = {name: file for name, file in self.origins.items() if not name.startswith(key + ".")}
            self.origins[key] = origin
            if value in (None, NULL):
                self.nulls[key] = origin


def read_settings(arguments: Sequence[str]) -> Settings:
    """Everything that a command line says, configs first where they come first.

    Args:
        arguments: The command line after the command; ``--config=PATH`` with existing paths.

    Raises:
        ValueError: A config is no YAML or no mapping; a word stands where no word belongs.
    """
    settings = Settings()
    words = list(arguments)
    while words:
        word = words.pop(0)
        option, equals, text = word.partition("=")
        if option in FLAGS_WITHOUT_SETTING:
            continue
        if not option.startswith("--"):
            raise ValueError(f"unexpected {word!r}; configs are named by --config, settings by --key=value")
        if not equals and words and not words[0].startswith("--"):
            text = words.pop(0)
        elif not equals:
            text = "true"
        if option == "--config":
            settings.merge(read_config(Path(text)), text)
        else:
            settings.merge(_nested(option.removeprefix("--").split("."), _value(text)), COMMAND_LINE)
    return settings


def read_config(path: Path) -> dict[str, Any]:
    """A config file, with the files that it names for its parts in their places.

    Raises:
        ValueError: It is no YAML, or no mapping.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected settings such as 'trainer:', not {str(content)[:40]!r}")
    return {str(name): _included(value, path.parent) for name, value in content.items()}


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: It is no YAML, with line and column, or no text.
    """
    try:
        return yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}{place}: {error.problem}; this is not valid YAML") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8; save the file as that") from error


def _included(value: Any, folder: Path) -> Any:
    """The value with the names of config files, relative to the file that has them, replaced by what is in them."""
    if isinstance(value, dict):
        return {str(name): _included(item, folder) for name, item in value.items()}
    if isinstance(value, list):
        return [_included(item, folder) for item in value]
    if is_config_name(value) and (folder / value).is_file():
        return _included(read_yaml(folder / value), (folder / value).parent)
    return str(folder / value) if is_config_name(value) else value


def _is_class_name(value: Any) -> bool:
    return isinstance(value, str) and all(part.isidentifier() for part in value.split("."))


def is_config_name(value: Any) -> bool:
    """Whether a value names a config file."""
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def merged(old: Any, new: Any) -> Any:
    """New settings over old ones.

    Mappings are merged, lists under ``name+`` appended, everything else is replaced; another class takes new arguments.
    Arguments without a class are those of the class named before, in a list of the last one, as jsonargparse has them.
    """
    if isinstance(old, list) and old and isinstance(new, dict):
        return [*old[:-1], merged(old[-1], new)] if "class_path" not in new else new
    if _is_class_name(old) and isinstance(new, dict) and "class_path" not in new:
        return {"class_path": old, "init_args": new.get("init_args", new)}
    if isinstance(old, dict) and isinstance(new, dict) and "class_path" in old and not SPEC & new.keys():
        new = {"init_args": new}
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    if new.get("class_path", old.get("class_path")) != old.get("class_path"):
        old = {name: value for name, value in old.items() if name != "init_args"}
    result = dict(old)
    for name, value in new.items():
        if name.endswith("+"):
            earlier = result.get(name[:-1]) or []
            added = value if isinstance(value, list) else [value]
            result[name[:-1]] = [*(earlier if isinstance(earlier, list) else [earlier]), *added]
        else:
            result[name] = merged(result.get(name), value)
    return result


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting at every depth with its short dotted key."""
    for name, value in settings.items():
        key = _short(prefix + name.removesuffix("+"))
        yield key, value
        if isinstance(value, dict):
            yield from flattened(value, key + ".")


def _short(key: str) -> str:
    """A key without ``init_args``, which the command line may leave out."""
    return ".".join(part for part in key.split(".") if part != "init_args")


def _nested(names: list[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def _value(text: str) -> Any:
    """A value of the command line: mappings and lists as in a config, everything else as it was typed."""
    if is_config_name(text) and Path(text).is_file():
        return read_config(Path(text))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return _with_text_keys(value) if isinstance(value, dict | list) else text


def _with_text_keys(value: Any) -> Any:
    """The keys of all mappings as text, as :func:`read_config` gives them."""
    if isinstance(value, dict):
        return {str(name): _with_text_keys(item) for name, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value
