"""What a check found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What one check found on one rank, or on all together.

    Attributes:
        check: What was looked at, in a word.
        ok: Whether it is as a run needs it; None where it could not be looked at.
        text: What is there.
        cure: Where it is not ok, what to do.
    """

    check: str
    ok: bool | None
    text: str
    cure: str = ""


def counted(number: int, thing: str) -> str:
    """A number of things, such as ``1 shard`` and ``3 shards``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def readable(size: int | float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
