"""Keeps tokens out of whatever is written down: configs, hyper-parameters, logs."""

import re
from typing import Any

HIDDEN = "***"
_SECRET_KEY = re.compile(r"(^|_)(token|secret|password|passwd|api_key|access_key|credentials?)(_|$)", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/?#@\s]+(?=@)")
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s]*)")


def redact(value: Any, key: str = "") -> Any:
    """The same settings without secrets.

    Hidden are the user part of URLs, the values in their queries, and settings whose name says that they are secret.

    Args:
        value: Plain settings, nested as in a config.
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
    if "://" in value:
        value = _USERINFO.sub(HIDDEN, value)
        return _QUERY_VALUE.sub(rf"\1={HIDDEN}", value)
    return value
