"""DDP: a whole model on each device, gradients averaged while the backward pass runs."""

from lightning.pytorch.strategies import DDPStrategy


class Replicated(DDPStrategy):
    """Lightning's DDP with the settings that save memory and time and change no number.

    Gradients live in the buckets that are sent. The graph is declared the same in each step, which lets torch plan its
    sending, unless batches accumulate: torch's static graph cannot leave a sending out.
    """

    def __init__(self) -> None:
        super().__init__(gradient_as_bucket_view=True)

    def configure_ddp(self) -> None:
        """Wraps the model, once the data has said how many batches accumulate."""
        assert self.lightning_module is not None
        self._ddp_kwargs["static_graph"] = self.lightning_module.trainer.accumulate_grad_batches == 1
        super().configure_ddp()
