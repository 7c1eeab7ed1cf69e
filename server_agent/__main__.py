"""Runs the agent: `python -m server_agent`."""

import asyncio
import os
import signal
import sys

import uvicorn

from server_agent import log
from server_agent.app import create_app
from server_agent.settings import from_environment

GRACE = 18  # seconds for requests in flight; with the loops' below the container's grace period


def main() -> int:
    """Serve until SIGTERM, then finish what is in flight."""
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 7
    log.configure(settings)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal once more when it is done; ours makes that a clean end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    asyncio.run(server.serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
