"""Ports for what a test starts itself."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress

# Below what the kernel takes from by itself, for listeners and for connections that go out: a
# port from there may be somebody else's by the time that it is used.
FIRST = 20_000
EACH = 500  # for each of the processes that share the tests


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else who tests is given."""
    first = FIRST + EACH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in random.sample(range(first, first + EACH), EACH):
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"none of the ports from {first} on is free")
