"""Ranks of ``doctor`` as processes that one server forks: what is slow to import is imported once.

Each line on stdin is a launch in JSON, its ranks in a list; the answer is the list of their exit codes, None of those
that had to be killed.
"""

import json
import os
import resource
import signal
import sys
import time
from typing import Any

import mae_lightning.cli.examination  # noqa: F401 - once for all ranks
from mae_lightning.__main__ import main


def start(rank: dict[str, Any]) -> int:
    """A process with what its launcher would have set, and with what is planted; its output goes into a file."""
    process = os.fork()
    if process:
        return process
    os.environ.update(rank["environment"])
    descriptor = os.open(rank["out"], os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.path[:0] = rank["sites"]
    if rank["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (rank["file_bytes"],) * 2)
    code = main(["doctor", *rank["arguments"]])
    sys.stdout.flush()
    os._exit(code)


def end_of(process: int, deadline: float) -> int | None:
    """The exit code; None where the process had to be killed."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


for line in sys.stdin:
    launch = json.loads(line)
    deadline = time.monotonic() + launch["limit"]
    processes = [start(rank) for rank in launch["ranks"]]
    print(json.dumps([end_of(process, deadline) for process in processes]), flush=True)
