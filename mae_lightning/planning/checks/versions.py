"""Versions of what must be the same on all ranks."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from mae_lightning import __version__
from mae_lightning.planning.checks.finding import Finding

MISSING = "missing"
PACKAGES = ("torch", "lightning", "timm")


def versions() -> dict[str, str]:
    """Version of Python, of the libraries that the numbers depend on, and of this package."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = MISSING
    return found | {"mae_lightning": __version__}


def check_versions(found: Mapping[str, str]) -> Finding:
    """Whether all are installed; that they are the same on all ranks is for rank 0 to see."""
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    if MISSING in found.values():
        return Finding("versions", False, text, "install the package again: pip install mae-lightning")
    return Finding("versions", True, text)
