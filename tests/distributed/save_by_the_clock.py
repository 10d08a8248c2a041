"""What `test_clocked_checkpoint.py` starts under torchrun: when each rank saved, and how often it asked the first."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from small_run import ON_CPU, SMALL

from mae_lightning.__main__ import main
from mae_lightning.callbacks import defaults
from mae_lightning.callbacks.clocked import ClockedCheckpoint

OPTIONS = ["--config=trainer/ddp", *ON_CPU, "--data.init_args.num_workers=0", "--trainer.max_epochs=1"]


def spied(kind: type, name: str, note: Any) -> None:
    """Has a method note each call first."""
    method = getattr(kind, name)

    def noting(self: Any, *arguments: Any, **options: Any) -> Any:
        note(self, *arguments)
        return method(self, *arguments, **options)

    setattr(kind, name, noting)


if __name__ == "__main__":
    seconds, *options = sys.argv[1:]
    defaults.SAVE_EVERY = timedelta(seconds=float(seconds))
    found: dict[str, list[int]] = {"saved": [], "asked": []}
    spied(ClockedCheckpoint, "_save_topk_checkpoint", lambda _, trainer, __: found["saved"].append(trainer.global_step))
    spied(DDPStrategy, "broadcast", lambda *_: found["asked"].append(sys._getframe(2).f_code is BATCH_END))
    BATCH_END = ModelCheckpoint.on_train_batch_end.__code__
    assert main(["fit", *SMALL, *OPTIONS, *options]) == 0
    found["asked"] = [sum(found["asked"])]
    Path(f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))
