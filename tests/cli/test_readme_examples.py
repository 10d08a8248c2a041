"""The README's lines of Python, run."""

import re
import warnings
from pathlib import Path

import pytest
from readme_commands import README

SECTION = README[README.index("## From Python") :]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION[: SECTION.index("\n## ", 5)], re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.split()[-1][:20])
def test_example(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice to whoever has no config
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_there_are_three() -> None:
    assert len(EXAMPLES) == 3
