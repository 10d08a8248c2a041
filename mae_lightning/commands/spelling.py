"""What was probably meant by a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of an error message: the names nearest to a misspelt one.

    Args:
        name: What was given.
        known: What would have been right.
        otherwise: What to say where nothing is near.
    """
    names = list(known)
    matches = get_close_matches(name, names, n=1, cutoff=0.8) or get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {' or '.join(map(repr, matches))}?"
    return f"; {otherwise}" if otherwise else ""
