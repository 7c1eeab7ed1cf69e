"""A connection to the database of which no step can hang.

libpq's own deadlines leave gaps: `connect_timeout` does not count the name's resolution, and
`statement_timeout` is kept by the server, so a server that is frozen keeps no promise.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections.abc import Callable

import psycopg2
from psycopg2.extensions import (
    POLL_OK,
    POLL_READ,
    connection,
    make_dsn,
    parse_dsn,
    set_wait_callback,
)

NAME = 2.0  # seconds to find the server's address
STATEMENT = 2000  # milliseconds, kept by the server
ANSWER = 3.0  # seconds for any one answer, kept here; longer, so that the server is first


class Late(psycopg2.OperationalError):
    """The database did not answer in time."""


def connect(url: str) -> connection:
    """Open a connection whose every step has a deadline.

    Raises:
        psycopg2.OperationalError: The database is not there.
    """
    set_wait_callback(wait)  # for the process: psycopg2 knows no narrower place for it
    return psycopg2.connect(
        make_dsn(url, **addresses(url)),
        options=f"-c statement_timeout={STATEMENT}",
        tcp_user_timeout=STATEMENT,
    )


def wait(link: connection) -> None:
    """Wait until the server has answered; psycopg2 closes the connection when this raises.

    Raises:
        Late: It did not in time.
    """
    ends = time.monotonic() + ANSWER
    while (state := link.poll()) != POLL_OK:
        watch = select.poll()
        watch.register(link.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        if not watch.poll(max(0.0, ends - time.monotonic()) * 1000):
            raise Late("the database did not answer in time")


def addresses(
    url: str, look_up: Callable[[str], list[str]] | None = None, seconds: float = NAME
) -> dict[str, str]:
    """Return the server's addresses in libpq's words; nothing where libpq needs no name.

    A resolver cannot be told to stop: it runs in a thread that is left to itself when late.

    Raises:
        Late: The resolver did not answer in time.
        psycopg2.OperationalError: There is no such name.
    """
    known = parse_dsn(url)
    name = known.get("host", "")
    if not name or name.startswith("/") or "," in name or "hostaddr" in known:
        return {}
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def work() -> None:
        try:
            found.put((look_up or _look_up)(name))
        except OSError as error:
            found.put(error)

    threading.Thread(target=work, name="resolver", daemon=True).start()
    try:
        result = found.get(timeout=seconds)
    except queue.Empty:
        raise Late("the name of the database's server was not found in time") from None
    if isinstance(result, OSError):
        raise psycopg2.OperationalError(f"the database's server: {result}")
    # libpq tries them in turn; it wants a name for each, which a certificate is checked against.
    return {"host": ",".join([name] * len(result)), "hostaddr": ",".join(result)}


def _look_up(name: str) -> list[str]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))
