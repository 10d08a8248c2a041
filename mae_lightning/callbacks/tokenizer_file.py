"""A trained tokenizer as the file that pretraining reads."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.models import save_tokenizer
from mae_lightning.tasks import TokenizerTraining


class TokenizerFile(Callback):
    """Writes ``tokenizer.safetensors`` into the run's folder when training ends.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes it, and says where."""
        assert isinstance(pl_module, TokenizerTraining)
        path = self.run_dir / "tokenizer.safetensors"
        save_tokenizer(pl_module.tokenizer, path)
        print(f"\n  tokenizer  {path}", flush=True)
