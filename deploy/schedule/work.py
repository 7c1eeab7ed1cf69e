"""What systemd or cron starts on the host: a backup, as `inv backup` would take it.

`python3 -m deploy.schedule.work PLAN`. Runs with nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import health, runbook, unattended
from deploy.command import script
from deploy.host import Host
from deploy.outcome import Failure
from deploy.pipeline import Done, Step
from deploy.postgres import access
from deploy.run import Run
from deploy.unattended import Reason

if TYPE_CHECKING:
    from deploy.settings import Settings

WAIT = 900.0  # seconds for a run that holds the lock: a deployment, as a rule
READY = 60  # seconds that a database which has just been started gets
AWAIT = """
ends=$((SECONDS + $2))
until docker exec "$1" pg_isready --quiet; do [ "$SECONDS" -lt "$ends" ]; sleep 1; done
"""


def main(words: list[str]) -> int:
    """Take a backup.

    Args:
        words: The file with the plan.

    Returns:
        The exit code that `inv backup` would have.
    """
    plan = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    first, *rest = runbook.backup()
    return unattended.begin(plan, Reason("backup", "timer", "timer", WAIT), (patient(first), *rest))


def patient(first: Step) -> Step:
    """Return the first step of a run such that it waits for the database before it begins."""

    def apply(run: Run) -> Done:
        await_database(run.target, run.settings)
        return first.apply(run)

    return replace(first, apply=apply)


def await_database(host: Host, settings: Settings) -> None:
    """Give what comes back with a host that was down its time; the run says what has not."""
    with contextlib.suppress(Failure):
        health.await_engine(host)
        identity = access.container(host, settings)
        if identity:
            host.run(script(AWAIT, identity, str(READY), deadline=READY + 10))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
