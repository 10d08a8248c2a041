"""The README's lines of Python, run; they are also in the docstrings of what they show."""

import re
import textwrap
import warnings
from pathlib import Path

import pytest
from readme_commands import README

from mae_lightning.data import ShardDataModule
from mae_lightning.models import MaskedAutoencoder
from mae_lightning.tasks import MAEPretraining

SECTION = README[README.index("## From Python") :]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION[: SECTION.index("\n## ", 5)], re.DOTALL)
SHOWN = [MaskedAutoencoder, MAEPretraining, ShardDataModule]


@pytest.mark.parametrize(
    ("code", "shown"), list(zip(EXAMPLES, SHOWN, strict=True)), ids=[each.__name__ for each in SHOWN]
)
def test_example(code: str, shown: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert textwrap.indent(code, " " * 8) in (shown.__doc__ or "")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice to whoever has no config
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
