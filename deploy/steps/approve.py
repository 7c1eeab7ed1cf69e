"""The Master's word: a deployment asks for it when all is ready and nothing is changed yet."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy import git, journal
from deploy.host.process import CommandFailed
from deploy.outcome import Busy, DataFailed, Failure, Invalid
from deploy.pipeline import Done, undisturbed
from deploy.postgres import access
from deploy.report import text
from deploy.run import Run
from deploy.telegram import approval, hearing
from deploy.telegram.approval import Heard, Posted, Proposal, Request
from deploy.telegram.hearing import Polling

PAUSE = 2.0  # seconds between two looks
REMIND = 300.0  # seconds between two lines that say how long it still waits
WITHDRAWN = "withdrawn"
LATE = "timed out"
UNASKED = "not asked"
AGAIN = "inv deploy --require-approval asks again"
ENDED = {
    "rejected": ("The Master has rejected the deployment", f"ask him why; {AGAIN}"),
    LATE: ("The Master has not decided in time", f"{AGAIN}; see approval.timeout"),
    UNASKED: (
        "The Master could not be asked in time, since the Bot API did not take the message",
        f"look at TELEGRAM_API_BASE and at the log of the run; {AGAIN}",
    ),
}


@dataclass(frozen=True)
class Way:
    """How the Master's word reaches us.

    Args:
        by: Who hears it.
        number: What the request is called there.
        hear: Waits for it, at most so many seconds; says what he decided, and whether to pause
            before the next time.
        withdraw: Takes the request back.
    """

    by: str
    number: int
    hear: Callable[[Request, Posted, float], tuple[Heard | None, bool]]
    withdraw: Callable[[], None]


@dataclass
class Asking:
    """A request on its way.

    Args:
        request: What the Master is asked.
        way: How he is heard.
        ends: When it is too late, by the monotonic clock.
        message: Where he is asked, once he is.
        decision: What became of it.
    """

    request: Request
    way: Way
    ends: float
    message: Posted | None = None
    decision: str = WITHDRAWN


def possible(run: Run) -> None:
    """See that the Master can be asked.

    Raises:
        Invalid: No bot, or no chat of his, is set.
    """
    environment = run.settings.environment
    given = {
        "TELEGRAM_API_TOKEN": environment.telegram_token.get_secret_value(),
        "MASTER_CHAT_ID": environment.master_chat_id,
    }
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise Invalid(
            "Nobody can be asked for approval",
            where="--require-approval",
            why=f"{' and '.join(missing)} must be set for it",
            next_step="set them in the environment or in .env; or deploy without it",
        )


def ask(run: Run) -> Done:
    """Ask the Master, and wait for his word.

    Raises:
        Busy: He said no, or nothing in time.
        Invalid: He cannot be heard, since somebody else hears the bot's updates.
    """
    began, limit = time.monotonic(), run.settings.approval.timeout
    shown = run.log.redactor.mask(approval.shown(proposal(run, datetime.now(UTC))))
    digest = approval.digest_of(shown)
    way = _way(run, digest, shown)
    asking = Asking(Request(way.number, digest, shown), way, began + limit)
    try:
        _post(run, asking)
        _wait(run, asking)
    finally:
        with undisturbed():
            _settle(run, asking, began)
    if asking.decision == "approved":
        return Done(f"approved, heard by {way.by}")
    what, next_step = ENDED[asking.decision]
    raise Busy(what, where=f"request {way.number}", next_step=next_step)


def proposal(run: Run, now: datetime) -> Proposal:
    """Return what the Master is shown of a run."""
    before, limit = run.previous, run.settings.approval.timeout
    parted = git.parted(run.builder, run.source, before.sha) if before else None
    facts: dict[str, Any] = {"tests": run.facts.get("tests"), "steps": [vars(i) for i in run.steps]}
    facts |= {"rehearsal": run.facts.get("rehearsal") or {"state": "skipped", "why": "unknown"}}
    until = f"{now + timedelta(seconds=limit):%Y-%m-%d %H:%M} UTC ({limit / 60:.0f} min)"
    return Proposal(
        title=run.settings.deploy.title,
        host=run.target.name,
        run=run.id,
        until=until,
        ref=run.source.ref,
        sha=run.source.sha,
        live=f"{before.id} ({before.ref})" if before else "",
        commits=parted.newest if parted else None,
        more=parted.more if parted else 0,
        lost=parted.lost if parted else 0,
        who=f"{run.caller.who} on {run.caller.machine} ({run.caller.trigger})",
        tests=text.tests(facts),
        rehearsal=text.rehearsal(facts),
        pending=text.pending(facts) if run.settings.migrate.command else "none",
        operations=text.operations(facts),
    )


def _way(run: Run, digest: str, shown: str) -> Way:
    """Have the application hear the Master when it is there and can; else listen ourselves."""
    found = _by_the_application(run, digest, shown) if run.previous else None
    if found:
        return found
    polling = Polling(run.settings.environment)
    polling.must_be_alone()
    # Nobody counts them: a number that no earlier command has named.
    number = 100_000 + secrets.randbelow(900_000)
    return Way("the pipeline", number, polling.hear, lambda: None)


def _by_the_application(run: Run, digest: str, shown: str) -> Way | None:
    wanted, quiet = run.settings.approval, journal.bookkeeping(run.target)
    if not wanted.request_query:
        return None
    try:
        identity = access.container(run.target, run.settings, run.env_file)
    except DataFailed as error:
        run.log.write(f"the application's database cannot be asked: {error.as_text()}")
        return None
    if not identity:
        return None
    values = {"run": run.id, "digest": digest, "text": shown, "seconds": f"{wanted.timeout:g}"}
    result = quiet.run(access.query(identity, wanted.request_query, values))
    number = result.out.strip()
    if not result.ok or not (number.isascii() and number.isdigit() and len(number) <= 18):
        run.log.say(f"  the application cannot hear the Master: {result.tail(1) or 'no number'}")
        return None

    def hear(request: Request, _message: Posted, _seconds: float) -> tuple[Heard | None, bool]:
        known = {"id": str(request.number), "digest": request.digest}
        asked = access.query(identity, wanted.decision_query, known)
        word = quiet.run(asked).out.strip()
        return (Heard(word) if word in approval.DECISIONS.values() else None), True

    def withdraw() -> None:
        quiet.run(access.query(identity, wanted.withdraw_query, {"id": number, "digest": digest}))

    return Way("the application", int(number), hear, withdraw)


def _post(run: Run, asking: Asking) -> None:
    while not _over(run, asking):
        asking.message, refusal = hearing.post(run.settings.environment, asking.request)
        if asking.message:
            return
        pause = min(max(PAUSE, refusal.again_after or 0), max(0, asking.ends - time.monotonic()))
        run.log.say(f"  the Master is not asked yet: {refusal.why}; again in {pause:.0f} s")
        time.sleep(pause)  # between two tries, up to a deadline


def _wait(run: Run, asking: Asking) -> None:
    if asking.message is None:
        asking.decision = UNASKED
        return
    say_at = time.monotonic()
    while True:
        late = _over(run, asking)
        if time.monotonic() >= say_at and not late:
            minutes = (asking.ends - time.monotonic()) / 60
            run.log.say(f"  waiting for the Master's word, {minutes:.1f} min left")
            say_at += REMIND
        try:
            left = asking.ends - time.monotonic()
            heard, pause = asking.way.hear(asking.request, asking.message, left)
        except CommandFailed:  # the engine may be away for a while
            heard, pause = None, True
        if heard or late:
            asking.decision = heard.decision if heard else LATE
            if heard:
                hearing.answer(run.settings.environment, heard)
            return
        if pause:
            time.sleep(max(0.0, min(PAUSE, asking.ends - time.monotonic())))  # the same


def _over(run: Run, asking: Asking) -> bool:
    """Tell whether it is too late, after a look whether the lock is still ours."""
    if run.held:
        run.held.check()
    return time.monotonic() >= asking.ends


def _settle(run: Run, asking: Asking, began: float) -> None:
    """Leave no request that somebody could still decide, and write down what became of it."""
    seconds = round(time.monotonic() - began, 3)
    run.facts["approval"] = {
        "decision": asking.decision,
        "seconds": seconds,
        "number": asking.request.number,
        "digest": asking.request.digest,
        "heard_by": asking.way.by,
    }
    if asking.decision in (WITHDRAWN, LATE, UNASKED):
        try:
            asking.way.withdraw()
        except Failure as error:
            run.log.write(f"the request could not be withdrawn: {error.as_text()}")
    if asking.message:
        said = approval.closed(asking.request, asking.decision)
        why = hearing.close(run.settings.environment, asking.message, said)
        if why:
            run.log.write(f"the message that asked could not be changed: {why}")
