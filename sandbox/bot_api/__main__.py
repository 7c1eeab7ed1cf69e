"""Runs the server until it is killed: `python -m sandbox.bot_api`."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from sandbox.bot_api.server import served
from sandbox.bot_api.state import MASTER, TOKEN, BotApi


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--chat", default=MASTER)
    parser.add_argument("--log", type=Path, help="where all that is accepted is written")
    parser.add_argument("--control", action="store_true", help="let /control/ play the Master")
    given = parser.parse_args()
    api = BotApi(given.token, frozenset({given.chat}), log=given.log, control=given.control)
    with served(api, given.host, given.port):
        print(api.url, flush=True)  # noqa: T201 - whoever started it waits for this line
        threading.Event().wait()


if __name__ == "__main__":
    main()
