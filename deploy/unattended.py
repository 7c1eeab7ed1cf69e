"""A run that the host begins by itself: from the plan that it was told, and its own secrets."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy import host as hosts
from deploy import terminal
from deploy.conduct import conduct
from deploy.dotenv import parse_env
from deploy.host import local_host
from deploy.journal import bookkeeping
from deploy.layout import Layout
from deploy.log import RunLog
from deploy.outcome import Failure
from deploy.pipeline import Step
from deploy.redact import Redactor, secret_values
from deploy.run import Caller, Run
from deploy.served import Section, section

API = "https://api.telegram.org"


@dataclass(frozen=True)
class Hidden:
    """A value that is shown to nobody who does not ask for it, as settings hold it."""

    value: str = field(repr=False)

    def get_secret_value(self) -> str:
        """Return it."""
        return self.value


@dataclass(frozen=True)
class Reason:
    """Why a host begins a run.

    Args:
        kind: What kind of run it is.
        who: Who wanted it.
        trigger: What has started it.
        wait: Seconds that it waits for a run that holds the lock.
    """

    kind: str
    who: str
    trigger: str
    wait: float


def begin(plan: Mapping[str, Any], reason: Reason, steps: Sequence[Step]) -> int:
    """Conduct a run on this host, and say on stderr how it failed.

    Args:
        plan: What the host was told.
        reason: Why the run is begun.
        steps: What it is made of.

    Returns:
        The exit code of the contract.
    """
    try:
        run = ready(plan, reason)
    except Failure as failure:
        terminal.err(f"error: {failure.as_text()}")
        return int(failure.code)
    return carry_out(run, steps)


def carry_out(run: Run, steps: Sequence[Step]) -> int:
    """Conduct a run, say on stderr how it failed, and return the exit code of the contract."""
    try:
        conduct(run, steps)
    except Failure as failure:
        terminal.err(f"error: {run.log.redactor.mask(failure.as_text())}")
        return int(failure.code)
    return 0


def ready(plan: Mapping[str, Any], reason: Reason) -> Run:
    """Given what the host was told, return the run.

    Raises:
        Invalid: The application's environment file cannot be read: nothing is begun.
    """
    log = RunLog(Redactor(), sys.stdout)
    target = replace(local_host(log), name=plan["host"])
    settings = section(plan["settings"])
    path = Layout(settings.deploy.root).env_file
    known = parse_env(hosts.read(bookkeeping(target), path), path)
    log.learn(secret_values(known))
    settings.environment = environment(known)
    return Run(
        kind=reason.kind,
        settings=settings,
        folder=Path(),
        target=target,
        builder=target,
        log=log,
        caller=Caller(reason.who, platform.node(), reason.trigger),
        started=datetime.now(UTC).replace(microsecond=0),
        wait=reason.wait,
    )


def environment(known: Mapping[str, str]) -> Section:
    """Given the application's variables, return what it takes to tell the Master."""
    return Section(
        telegram_token=Hidden(known.get("TELEGRAM_API_TOKEN", "")),
        telegram_api_base=known.get("TELEGRAM_API_BASE", "") or API,
        master_chat_id=known.get("MASTER_CHAT_ID", ""),
        passed={},
    )
