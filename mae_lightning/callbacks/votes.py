"""What all processes agree on at a step's end, without any of them waiting for its device."""

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy


class Votes:
    """Gathers a yes or no of each process while the next step runs, over the CPU.

    All processes cast as many votes, and all learn the same of each: whether any said yes. What they learn is the
    outcome of the vote before. Alone, a process learns its own at once.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        self._vote = torch.zeros(1, dtype=torch.int32)
        self._pending: dist.Work | None = None

    def meet(self, strategy: Strategy) -> None:
        """Finds the other processes; all call it, in the same order among what they do together.

        Args:
            strategy: Votes wait for other processes as long as it does.
        """
        group = dist.new_group(backend="gloo", timeout=getattr(strategy, "_timeout", None))
        assert isinstance(group, dist.ProcessGroup)
        self._group = group

    def cast(self, wish: bool) -> bool:
        """Votes, and learns whether some process said yes in the vote before."""
        if self._group is None:
            return wish
        agreed = False
        if self._pending is not None:
            self._pending.wait()
            agreed = bool(self._vote)
        self._vote = torch.tensor([wish], dtype=torch.int32)
        self._pending = dist.all_reduce(self._vote, dist.ReduceOp.MAX, self._group, async_op=True)
        return agreed
