"""What a figure came from: the code's commit, the config and the data, each as a hash."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mae_lightning

PLACES = ("run", "trainer.default_root_dir", "model.init_args.init_from")
"""Settings that say where things lie, and so are no part of a config's hash."""


def code_version() -> str:
    """The package's version, with the commit and whether files were changed since, where it runs out of a clone."""
    folder = Path(mae_lightning.__file__).parent
    version: str = mae_lightning.__version__
    if not (folder.parent / ".git").exists():
        return version
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    return f"{version}+{commit}{'.changed' if _git(folder, 'status', '--porcelain', '--', '.') else ''}"


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of a run's config, without the places of its files."""
    content = json.loads(json.dumps(config, sort_keys=True, default=str))
    for key in PLACES:
        _remove(content, key.split("."))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _remove(content: Any, keys: list[str]) -> None:
    *outer, last = keys
    for key in outer:
        content = content.get(key) if isinstance(content, dict) else None
    if isinstance(content, dict):
        content.pop(last, None)
