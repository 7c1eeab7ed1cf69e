"""What systemd or cron starts on the host: a backup, as `inv backup` would take it.

`python3 -m deploy.schedule.work PLAN`. Runs with nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy import health, runbook, terminal
from deploy import host as hosts
from deploy.command import script
from deploy.conduct import conduct
from deploy.dotenv import parse_env
from deploy.host import Host, local_host
from deploy.journal import bookkeeping
from deploy.layout import Layout
from deploy.log import RunLog
from deploy.outcome import Failure
from deploy.postgres import access
from deploy.redact import Redactor, secret_values
from deploy.run import Caller, Run
from deploy.served import Section, section

if TYPE_CHECKING:
    from deploy.settings import Settings

API = "https://api.telegram.org"
WAIT = 900.0  # seconds for a run that holds the lock: a deployment, as a rule
READY = 60  # seconds that a database which has just been started gets
AWAIT = """
ends=$((SECONDS + $2))
until docker exec "$1" pg_isready --quiet; do [ "$SECONDS" -lt "$ends" ]; sleep 1; done
"""


@dataclass(frozen=True)
class Hidden:
    """A value that is shown to nobody who does not ask for it, as settings hold it."""

    value: str = field(repr=False)

    def get_secret_value(self) -> str:
        """Return it."""
        return self.value


def main(words: list[str]) -> int:
    """Take a backup.

    Args:
        words: The file with the plan.

    Returns:
        The exit code that `inv backup` would have.
    """
    plan = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    log = RunLog(Redactor(), sys.stdout)
    try:
        run = run_of(plan, replace(local_host(log), name=plan["host"]), log)
        await_database(run.target, run.settings)
        conduct(run, runbook.backup())
    except Failure as failure:
        terminal.err(f"error: {log.redactor.mask(failure.as_text())}")
        return int(failure.code)
    return 0


def run_of(plan: dict[str, Any], target: Host, log: RunLog) -> Run:
    """Given the plan, return the run.

    Raises:
        Invalid: The application's environment file cannot be read.
    """
    settings = section(plan["settings"])
    path = Layout(settings.deploy.root).env_file
    known = parse_env(hosts.read(bookkeeping(target), path), path)
    log.learn(secret_values(known))
    settings.environment = environment(known)
    return Run(
        kind="backup",
        settings=settings,
        folder=Path(),
        target=target,
        builder=target,
        log=log,
        caller=Caller("timer", platform.node(), "timer"),
        started=datetime.now(UTC).replace(microsecond=0),
        wait=WAIT,
    )


def environment(known: Mapping[str, str]) -> Section:
    """Given the application's variables, return what it takes to tell the Master."""
    return Section(
        telegram_token=Hidden(known.get("TELEGRAM_API_TOKEN", "")),
        telegram_api_base=known.get("TELEGRAM_API_BASE", "") or API,
        master_chat_id=known.get("MASTER_CHAT_ID", ""),
        passed={},
    )


def await_database(host: Host, settings: Settings) -> None:
    """Give what comes back with a host that was down its time; the run says what has not."""
    with contextlib.suppress(Failure):
        health.await_engine(host)
        identity = access.container(host, settings)
        if identity:
            host.run(script(AWAIT, identity, str(READY), deadline=READY + 10))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
