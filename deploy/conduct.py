"""A run from its first step to the last line of its log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from deploy import journal, recover, telegram, verdict
from deploy.called import as_called
from deploy.detached.launch import HostKilled
from deploy.outcome import Failure, Unreachable, failure_of
from deploy.pipeline import Step, execute, undisturbed
from deploy.report import record as records
from deploy.report import text
from deploy.run import Run
from deploy.steps import prepare

QUIET = ("backup", "verify")  # a timer's good backup is no news


def conduct(run: Run, steps: Sequence[Step]) -> dict[str, Any]:
    """Run the steps, then record, report and notify, however they ended.

    Returns:
        The record of the run.

    Raises:
        Failure: What ended the run, as it stands after the way back.
    """
    failure: Failure | None = None
    try:
        execute(run, steps)
    except HostKilled as error:
        with undisturbed():
            failure = settle_killed(run, error)
    except Failure as error:
        failure = error
    with undisturbed():
        if failure and (told := verdict.about_data(run)):
            run.warn(told)
        record = finish(run, failure)
    if failure:
        raise failure
    return record


def settle_killed(run: Run, killed: HostKilled) -> Failure | None:
    """Put right at once what the host was killed at; return how the run ended after that."""
    try:
        return recover.settle_own(run, killed)
    except Failure as error:
        run.warn(f"it cannot be put right now: {error.as_text()}")
        return killed


def finish(run: Run, failure: Failure | None) -> dict[str, Any]:
    """Record, report and notify; nothing here changes how the run ended."""
    if failure and run.caller.trigger.startswith("fab"):  # who is told next types what was typed
        failure.next_step = as_called(failure.next_step, "fab", run.settings.deploy.host)
    record = records.build(run, failure, datetime.now(UTC))
    if failure:
        run.log.write(failure.as_text())
    reached = _try(run, "the record could not be kept", lambda: _keep(run, record))
    if run.kind not in QUIET or failure:
        record["notification"] = notify(run, record)
    prepare.clean_builder(run)
    if run.held:
        run.log.say(f"log: {run.target.name}:{run.layout.log(run.started)}")
    last = f"outcome: {record['outcome']} (exit code {record['code']})"
    run.log.say(last)
    if not reached:  # each try would wait for the host once more
        return record
    _try(run, "the record could not be kept", lambda: _keep(run, record))
    if run.held:
        what = "what the application may read could not be written"
        _try(run, what, lambda: journal.keep_public(run))
    good = failure is None
    _try(run, "the lock could not be released", lambda: prepare.give_back_lock(run, good=good))
    return record


def notify(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """Tell the Master about a run; never raises."""
    body = run.log.redactor.mask(text.message(record, run.settings.deploy.title))
    delivery = telegram.send(run.settings.environment, body, run.settings.telegram.deadline)
    told = {"sent": delivery.sent, "attempts": delivery.attempts, "why": delivery.why}
    run.log.write(f"notification: {json.dumps(told)}")
    if run.settings.environment.telegram_token.get_secret_value() and not delivery.sent:
        run.log.say(f"warning: the Master could not be told: {delivery.why}")
    return told


def _keep(run: Run, record: dict[str, Any]) -> None:
    if run.held:
        journal.keep_record(run, record)
        journal.keep_log(run)


def _try(run: Run, what: str, act: Any) -> bool:
    """Do it; say what went wrong, and return whether the host could be reached."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - bookkeeping must not hide how the run ended
        failure = failure_of(error)
        run.log.say(f"warning: {what}: {failure.what} {failure.why}".strip())
        return not isinstance(failure, Unreachable)
    return True
