"""R8, 1 to 6: a config from a stranger imports and runs nothing."""

import sys
from pathlib import Path

import pytest

from mae_lightning.__main__ import main

STRANGER = "import pathlib\npathlib.Path('ran').touch()\n"
CALLBACKS = "lightning.pytorch.callbacks"
POPEN = "class_path: subprocess.Popen, init_args: {args: [touch, ran]}"
CONFIGS = {
    "1 a callable argument": f"callbacks: {{class_path: {CALLBACKS}.LambdaCallback, init_args: {{setup: os.system}}}}",
    "1 the same within a list": f"callbacks: [{{class_path: {CALLBACKS}.EMA, init_args: {{avg_fn: os.system}}}}]",
    "2 a module on the path": "callbacks: {class_path: stranger.Callback}",
    "3 a YAML tag": "!!python/object/apply:os.system ['touch ran']",
    "3 one further in": "{max_epochs: !!python/object/new:os.system ['touch ran']}",
    "4 a process for a callback": f"callbacks: {{{POPEN}}}",
    "5 a process within a list": f"logger: [{{class_path: lightning.pytorch.loggers.CSVLogger}}, {{{POPEN}}}]",
    "6 one that the environment names": "callbacks: {class_path: '${oc.env:STRANGER}'}",
}


@pytest.mark.parametrize("case", CONFIGS)
def test_nothing_runs(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for name in ("STRANGER", "PL_TRAINER__CALLBACKS", "MAE_LIGHTNING_TRAINER__CALLBACKS"):
        monkeypatch.setenv(name, "subprocess.Popen" if case.startswith("6") else "")
    Path("stranger.py").write_text(STRANGER)
    text = CONFIGS[case]
    Path("my.yaml").write_text(f"trainer: {text if text.startswith(('!', '{')) else f'{{{text}}}'}\n")
    assert main(["fit", "--config=quickstart/pretrain", "--config=trainer/cpu", "--config=my.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "my.yaml" in error
    assert error.count("\n") == 1
    assert "stranger" not in sys.modules
    assert {path.name for path in Path().iterdir()} == {"my.yaml", "stranger.py"}


def test_the_stranger_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(STRANGER)
    assert Path("ran").exists()
