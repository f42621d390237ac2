"""Asking a Prefect server that may be away for some minutes."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect.logging import get_logger

Result = TypeVar("Result")

PATIENCE = 600.0
"""Seconds for which a server that does not answer is asked again."""
PAUSE = 5.0


def patiently(call: Callable[[], Result]) -> Result:
    """What `call` returns, again and again while no server answers; Prefect's client gives up a first connection.

    Raises httpx.HTTPError once that has gone on for `PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise
            get_logger("flows").warning("the Prefect server does not answer (%s); asking again", error)
            time.sleep(PAUSE)
