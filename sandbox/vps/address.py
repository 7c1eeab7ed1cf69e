"""An address of its own on loopback for every box."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator, Mapping

# Outside -> inside. 8000 is the front door of what is deployed.
PORTS: Mapping[int, int] = {2222: 22, 8000: 8000, 8080: 80, 8443: 443}
FIRST, LAST = 2, 250


def candidates(seed: int, taken: Collection[str]) -> Iterator[str]:
    """Return the addresses to try, from a place that differs between checkouts.

    Args:
        seed: Any number that belongs to the checkout.
        taken: Addresses of other boxes, stopped ones included.
    """
    span = LAST - FIRST + 1
    for step in range(span):
        address = f"127.0.0.{FIRST + (seed + step) % span}"
        if address not in taken:
            yield address


def is_free(address: str) -> bool:
    """Tell whether nothing listens on the box's ports at this address."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
                    return False
                raise
    return True
