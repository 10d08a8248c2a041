"""Learning rates that follow the batch size."""


def scaled_lr(base_lr: float, global_batch_size: int, per: int = 256) -> float:
    """The learning rate for a global batch, proportional to its size (Goyal et al. 2017, arXiv 1706.02677).

    Args:
        base_lr: Learning rate for a batch of ``per`` images.
        global_batch_size: Images an optimiser step, over all devices and accumulated micro-batches.
        per: 256 for masked autoencoders; SimMIM states its rates per 512.
    """
    return base_lr * global_batch_size / per
