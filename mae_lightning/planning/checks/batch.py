"""How the global batch divides, and the learning rate that follows from it."""

from mae_lightning.data.batching import split_batch
from mae_lightning.planning.checks.finding import Finding, counted


def check_batch(
    global_batch_size: int,
    ranks: int,
    accumulation: int | None,
    max_micro_batch_size: int | None,
    num_samples: int | None = None,
    lr_rule: str | None = None,
    repeats: int = 1,
) -> Finding:
    """Whether every rank gets whole micro-batches, and an epoch at least one step.

    Args:
        global_batch_size: Images of one optimiser step.
        ranks: Of the run.
        accumulation: Micro-batches a step, where the trainer asks for a number.
        max_micro_batch_size: Most images a device holds at once.
        num_samples: Training samples, where they are known.
        lr_rule: The learning rate and how it came about.
        repeats: Crops of one sample in a step.
    """
    try:
        micro, parts = split_batch(global_batch_size, ranks, accumulation, max_micro_batch_size, repeats)
    except ValueError as error:
        return Finding("batch", False, str(error))  # it says what would fit
    text = f"{global_batch_size} = {micro} images x {counted(ranks, 'rank')} x accumulation {parts}"
    group = ranks * repeats
    crops = None if num_samples is None else num_samples * repeats
    if crops is not None and crops < global_batch_size:
        return Finding(
            "batch",
            False,
            f"{num_samples} training samples{_each(repeats)} do not fill one global batch of {global_batch_size}",
            f"set --data.init_args.global_batch_size to {crops // group * group} or less, or name more data",
        )
    return Finding("batch", True, f"{text}; lr {lr_rule}" if lr_rule else text)


def _each(repeats: int) -> str:
    return f" of {repeats} crops each" if repeats > 1 else ""


def split_or_none(
    global_batch_size: int, ranks: int, accumulation: int | None, max_micro_batch_size: int | None, repeats: int
) -> tuple[int, int] | None:
    """Micro-batch size and accumulation; None where the division is not whole, which `check_batch` says."""
    try:
        return split_batch(global_batch_size, ranks, accumulation, max_micro_batch_size, repeats)
    except ValueError:
        return None
