"""Memory that is freed stays with the process once it is told so."""

import json
import subprocess
import sys

import pytest

STEPS = """
import json, resource, torch
from mae_lightning.planning.allocator import keep_freed_memory

def faults():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(16):
            torch.ones(2**24)
        count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return count

given_back = faults()
print(json.dumps([keep_freed_memory(), given_back, faults()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_pages_are_asked_for_once() -> None:
    """Pieces of 64 MiB: glibc would map them one by one, and trim its heap of them if it could not.

    Counted in a second round: a few pieces pass until the heap has its shape.
    """
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    keeps, given_back, kept = json.loads(done.stdout)
    assert keeps
    assert given_back > 10_000
    assert kept < given_back / 20
