"""What configs may name."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import set_parsing_settings

ALLOWED = ("mae_lightning", "lightning", "timm", "torch", "torchmetrics")
DENIED = ("lightning.pytorch.cli", "torch.hub", "torch.load", "torch.serialization", "torch.utils.cpp_extension")
"""These run code by their nature, inside packages that are allowed."""


_once_allowed: set[str] = set()
"""Packages of the user's that an earlier policy of this process let in; jsonargparse only ever adds."""


class ImportPolicy:
    """Lets configs name classes of the known libraries and of some packages of the user's, and nothing else.

    A config is data: without this, reading one could import and run anything that is installed.

    Args:
        packages: The packages of the user's.
    """

    def __init__(self, packages: Sequence[str] = ()) -> None:
        self.packages = packages
        self.verdicts = dict.fromkeys(DENIED, False) | dict.fromkeys([*ALLOWED, *packages], True)

    def permits(self, path: str) -> bool:
        """Whether a dotted path may be named; its longest part that has a verdict decides."""
        parts = path.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.verdicts[prefix] for prefix in prefixes if prefix in self.verdicts), False)

    def enforce(self) -> None:
        """Makes jsonargparse keep to it from here on; the user's packages may lie in the working directory."""
        folder = str(Path.cwd())
        if self.packages and folder not in sys.path:
            sys.path.append(folder)
        denied = [path for path, permitted in self.verdicts.items() if not permitted]
        set_parsing_settings(
            import_path_denylist=["*", *denied, *(_once_allowed - self.verdicts.keys())],
            import_path_allowlist=[path for path, permitted in self.verdicts.items() if permitted],
            instantiate_subclass_spec_in_any=False,
        )
        _once_allowed.update(self.packages)
