"""Keeps tokens out of whatever is written down: configs, command lines, errors, logs."""

import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "***"
_WORDS = r"(?:(?<!mask_)(?<!class_)token|secret|password|passwd|api_key|access_key|credentials?)"
"""A model's mask and class tokens are no secrets."""
_SECRET_KEY = re.compile(rf"(^|[_.]){_WORDS}(_|$)", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?<![^\W_])({_WORDS}(?:_\w+)?['\"]?\s*[:=]\s*)([^\s,}}\]&]+)", re.IGNORECASE)
_URL = re.compile(r"([a-z][\w+.-]+:/{1,2})([^\s'\"/?#]*@)?([^\s'\"?#]*)(\?[^\s'\"#]*)?(#[^\s'\"]*)?", re.IGNORECASE)


def redact(value: Any, key: str = "") -> Any:
    """The same settings without secrets.

    Hidden are the user part of URLs, the values in their queries, their fragments, and settings whose name says that
    they are secret; all of them in sentences too.

    Args:
        value: Plain settings, nested as in a config; or any text.
        key: The name the value stands under.
    """
    if isinstance(value, dict):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redact(item, key) for item in value)
    if not isinstance(value, str):
        return value
    if _SECRET_KEY.search(key):
        return HIDDEN
    return _URL.sub(_public, _ASSIGNED.sub(rf"\1{HIDDEN}", value))


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """A command line without secrets, with settings as ``--key=value`` or ``--key value``."""
    shown, key = [], ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if word.startswith("--") and equals:
            shown.append(f"{option}={redact(value, _last(option))}")
        else:
            shown.append(redact(word, key))
        key = _last(word) if word.startswith("--") and not equals else ""
    return shown


def _last(option: str) -> str:
    return option.lstrip("-").rpartition(".")[2]


def _public(url: re.Match[str]) -> str:
    scheme, user, place, query, fragment = url.groups(default="")
    parts = (part.partition("=") for part in query.removeprefix("?").split("&"))
    values = "&".join(f"{name}={HIDDEN}" if equals else HIDDEN for name, equals, _ in parts)
    hidden = (f"{HIDDEN}@" if user else "", place, f"?{values}" if query else "", f"#{HIDDEN}" if fragment else "")
    return scheme + "".join(hidden)
