"""Whether Weights & Biases can be reached, where the run is to."""

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Literal

from mae_lightning.data.urls import public_name
from mae_lightning.planning.checks.finding import Finding
from mae_lightning.planning.checks.patience import within

SERVER = "https://api.wandb.ai"
SECONDS = 5.0


def check_wandb(
    mode: Literal["online", "offline", "off"], server: str | None = None, timeout: float = SECONDS
) -> Finding:
    """Whether the server answers; what keeps figures on this machine is never red.

    Args:
        mode: What the run will do.
        server: Its address; None takes the one that W&B would.
        timeout: Seconds.
    """
    if mode == "off":
        return Finding("wandb", True, "off: figures go to metrics.csv")
    if mode == "offline":
        return Finding("wandb", True, "offline: figures stay in the run's folder; wandb sync sends them later")
    server = server or os.environ.get("WANDB_BASE_URL") or SERVER
    try:
        within(timeout, lambda: _answer(server, timeout))
    except urllib.error.HTTPError as error:
        error.close()  # it answers: what it says to a request without a key does not matter
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Finding(
            "wandb",
            False,
            f"{public_name(server)} does not answer: {reason}",
            "add --run.wandb=offline, or set HTTPS_PROXY or WANDB_BASE_URL",
        )
    return Finding("wandb", True, f"{public_name(server)} answers")


def _answer(server: str, timeout: float) -> None:
    urllib.request.urlopen(server, timeout=timeout).close()
