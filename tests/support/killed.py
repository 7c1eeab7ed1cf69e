"""A restore that kills itself: `python -m tests.support.killed STEP ENDING CONTAINER FOLDER FILE`.

Before its command of that number; what it runs on goes on without it, as on a real host.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from datetime import UTC, datetime

from deploy.command import Command
from deploy.host import Host, Process, local_host
from deploy.log import RunLog
from deploy.postgres import restore
from deploy.postgres.access import Database
from deploy.postgres.restore import Restored
from deploy.redact import Redactor
from tests.support.dumps import quiet

ENDINGS = {"finish": restore.finish, "undo": restore.undo}


def dying(host: Host, step: int) -> Host:
    """Return a host whose command of that number is never started."""
    started: list[Command] = []

    def start(command: Command) -> Process:
        started.append(command)
        if len(started) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return host.start(command)

    return Host(host.name, host.address, start, host.close, host.log, host.python, host.package)


def main(step: str, ending: str, container: str, folder: str, file: str) -> None:
    """Restore a backup, and end it one way or the other."""
    here = dying(local_host(RunLog(Redactor(), io.StringIO())), int(step))
    database = Database(here, container, folder, "shop", 60, f"{folder}/lib")
    path = restore.path_of(folder, file)
    known = restore.known_of(database, path)
    assert known is not None
    pair = restore.pair_of(database, datetime.now(UTC))
    restore.swap_in(database, pair, path, known, quiet)
    ENDINGS[ending](database, Restored(pair, known, 0, 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
