"""A mistake of the user's is one line; a bug keeps its stack trace.

What this package raises on purpose as ValueError or FileNotFoundError speaks to the user, wherever it is raised: in a
constructor, in a training step, in a loader's worker process; and a file that the system refuses names itself.
Everything else is a bug, of ours or of a library.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from mae_lightning.secrets import redact

PACKAGE = str(Path(__file__).parents[1]) + os.sep
TRACEBACK_VARIABLE = "MAE_LIGHTNING_TRACEBACK"


def exit_code(call: Callable[[], int]) -> int:
    """Runs a command and turns how it ended into an exit code; where there are several processes, errors name the rank.

    Returns:
        The command's own code, 2 after a mistake of the user's, 130 after an interruption.
    """
    try:
        return call()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as ended:  # a help page was printed, or Lightning ended its process
        if isinstance(ended.code, str):
            raise
        return ended.code or 0
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 -- whoever read our output is gone: nothing to say
        return 0
    except Exception as error:
        line, rank = one_line(error), _rank()
        if line is None or os.environ.get(TRACEBACK_VARIABLE):
            if rank is not None:
                error.add_note(f"on rank {rank}")
            raise
        who = "" if rank is None else f"rank {rank}: "
        sys.stderr.write(f"error: {who}{redact(line)}\n")  # at once: lines of several processes do not mix
        return 2


def _rank() -> int | None:
    """This process's rank among those of a launch, or None where it is alone."""
    if not {"WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"} & os.environ.keys():  # light commands import nothing for this
        return None
    import torch.distributed as dist

    from mae_lightning.planning.checks.ranks import read_launch

    if dist.is_initialized():
        return dist.get_rank() if dist.get_world_size() > 1 else None
    try:
        launch = read_launch()
    except ValueError:  # then this is what the error says
        return None
    return launch.rank if launch.world_size > 1 else None


def one_line(error: BaseException) -> str | None:
    """What to tell the user about an error, or None where it is a bug."""
    for link in causes(error):
        message = _out_of_memory(link) or _from_worker(link) or _raised_here(link)
        if message is not None:
            return " ".join(message.split())
    return _refused_file(error)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it, the outermost first."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:  # an error raised again from what it led to closes a circle
        yield link
        seen.append(link)
        link = link.__cause__ or link.__context__


def _raised_here(error: BaseException) -> str | None:
    """The message of an error that a line of this package raised on purpose."""
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError | FileNotFoundError) or not frames:
        return None
    if isinstance(error, FileNotFoundError) and error.filename and frames[-1].filename.startswith(PACKAGE):
        return f"{error.filename} does not exist"
    return str(error) if _is_deliberate(frames[-1].filename, frames[-1].line or "raise") else None


def _refused_file(error: BaseException) -> str | None:
    """What the system says of a file that this package works with, such as one in a folder that is not there."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return None
    frames = traceback.extract_tb(error.__traceback__)
    is_ours = any(frame.filename.startswith(PACKAGE) for frame in frames)
    return f"{error.filename}: {error.strerror}" if is_ours else None


def _is_deliberate(filename: str, line: str) -> bool:
    """Whether a statement raises; a ValueError of ``int('x')`` in our code is a bug."""
    return filename.startswith(PACKAGE) and line.startswith("raise")


def _from_worker(error: BaseException) -> str | None:
    """The same for an error that came as text out of a loader's worker process."""
    match = re.match(r"Caught (ValueError|FileNotFoundError) in \w+ worker process", str(error))
    if match is None:
        return None
    text = str(error)
    frames = re.findall(r'^ *File "(.+)", line \d+.*\n(?: +(\S.*))?', text, re.MULTILINE)
    if not frames or not _is_deliberate(frames[-1][0], frames[-1][1]):
        return None
    return text.rsplit(f"\n{match[1]}: ", 1)[-1]


def _out_of_memory(error: BaseException) -> str | None:
    """What helps when a device's memory is full."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    return (
        "the device's memory is full; set --data.init_args.max_micro_batch_size to less than what fits now "
        "(accumulation follows, and the result stays the same)"
    )
