"""A trial's run on W&B shows each row of its stages once, over the stage's own steps, however often it is resumed."""

from unittest.mock import MagicMock

from lightning.pytorch.loggers import WandbLogger

from mae_lightning.tracking import trial_board


class Logger(WandbLogger):
    def __init__(self, run):
        self.run = run

    @property
    def experiment(self):
        return self.run


def test_rows_are_shown_once(tmp_path, monkeypatch):
    run = MagicMock()
    monkeypatch.setattr(trial_board, "build_loggers", lambda *_: [Logger(run)])
    stage = tmp_path / "pretrain"
    stage.mkdir()
    rows = ["step,train/loss,val/loss\n", "1,0.5,\n", "2,,0.25\n", "3,0.125"]
    (stage / "metrics.csv").write_text("".join(rows))
    for _ in range(2):
        board = trial_board.TrialBoard(tmp_path, "p", "offline", {"pretrain.model.mask_ratio": "0.5", "seed": "x"}, "s")
        board.show("pretrain", stage)
        board.show("pretrain", stage)
        (stage / "metrics.csv").write_text("".join([*rows, "\n"]))
    shown = [call.args[0] for call in run.log.call_args_list]
    assert shown == [
        {"pretrain/step": 1, "pretrain/train/loss": 0.5},
        {"pretrain/step": 2, "pretrain/val/loss": 0.25},
        {"pretrain/step": 3, "pretrain/train/loss": 0.125},
    ]
    run.define_metric.assert_called_with("pretrain/*", step_metric="pretrain/step")
    run.config.update.assert_any_call({"pretrain/model/mask_ratio": 0.5, "seed": "x"})
    facts = {"study": "s", "finished": True, "code": "c", "draws": {}, "stages": {}}
    board.finish({"metrics": {"trial/finetune_accuracy": 0.5}, **facts})
    run.config.update.assert_called_with({"trial": facts}, allow_val_change=True)
    assert run.log.call_args.args[0] == {"trial/finetune_accuracy": 0.5}
    run.finish.assert_called_once()
