"""How the global batch divides into micro-batches."""

from __future__ import annotations

__all__ = ["split_batch"]


def split_batch(
    global_batch_size: int,
    world_size: int,
    accumulation: int | None = None,
    max_micro_batch_size: int | None = None,
    repeats: int = 1,
) -> tuple[int, int]:
    """Micro-batch size and accumulation whose product with the world size is exactly the global batch.

    Args:
        global_batch_size: Images of one optimiser step, over all devices.
        world_size: Devices that share the batch.
        accumulation: Micro-batches a step; None takes the fewest that `max_micro_batch_size` allows.
        max_micro_batch_size: Most images a device holds at once; None for no bound.
        repeats: Crops of one sample, which stay together in a micro-batch.

    Raises:
        ValueError: The division is not whole; names the numbers and the nearest batch sizes that work.
    """
    if global_batch_size < 1:
        raise ValueError(f"global_batch_size {global_batch_size} must be at least 1")
    if max_micro_batch_size is not None and max_micro_batch_size < 1:
        raise ValueError(f"max_micro_batch_size {max_micro_batch_size} must be at least 1")
    if repeats > 1:
        micro_batch_size, accumulation = _split_samples(
            global_batch_size, world_size, accumulation, max_micro_batch_size, repeats
        )
        return micro_batch_size * repeats, accumulation
    per_device, rest = divmod(global_batch_size, world_size)
    if rest:
        raise ValueError(
            f"global_batch_size {global_batch_size} does not divide by {world_size} devices;"
            f" {_nearest(global_batch_size, world_size)} would"
        )
    bound = max_micro_batch_size or per_device
    if accumulation is None:
        accumulation = next(
            parts for parts in range(-(-per_device // bound), per_device + 1) if per_device % parts == 0
        )
    micro_batch_size, rest = divmod(per_device, accumulation)
    if rest:
        group = world_size * accumulation
        raise ValueError(
            f"global_batch_size {global_batch_size} does not divide by {world_size} devices"
            f" x accumulation {accumulation} = {group}; {_nearest(global_batch_size, group)} would"
        )
    if micro_batch_size > bound:
        raise ValueError(
            f"global_batch_size {global_batch_size} over {world_size} devices x accumulation {accumulation} gives"
            f" micro-batches of {micro_batch_size}, more than max_micro_batch_size {bound};"
            f" accumulation {-(-per_device // bound)} or more, or none given, would fit"
        )
    return micro_batch_size, accumulation


def _split_samples(
    global_batch_size: int, world_size: int, accumulation: int | None, max_micro_batch_size: int | None, repeats: int
) -> tuple[int, int]:
    """The same for the samples of which there are several crops each.

    Raises:
        ValueError: As above, or the crops of one sample do not fit into the batch or the bound.
    """
    if global_batch_size % repeats:
        raise ValueError(
            f"global_batch_size {global_batch_size} does not divide by {repeats} crops of each sample;"
            f" {_nearest(global_batch_size, repeats)} would"
        )
    if max_micro_batch_size is not None and max_micro_batch_size < repeats:
        raise ValueError(f"max_micro_batch_size {max_micro_batch_size} is less than {repeats} crops of one sample")
    bound = None if max_micro_batch_size is None else max_micro_batch_size // repeats
    try:
        return split_batch(global_batch_size // repeats, world_size, accumulation, bound)
    except ValueError as error:
        raise ValueError(f"of {repeats} crops each, counted in samples: {error}") from None


def _nearest(size: int, group: int) -> str:
    below = size // group * group
    return f"{below} or {below + group}" if below else f"{group}"
