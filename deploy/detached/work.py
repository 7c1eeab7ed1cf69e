"""What the host does by itself: run the steps, undo them when one fails, and write how it ended.

`python3 -m deploy.detached.work run PLAN` does it, `... follow PLAN LINES` shows another how it
goes on. Runs with nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from deploy import host as hosts
from deploy import journal, public, releases, traffic, verdict
from deploy.detached import plan as plans
from deploy.detached import steps
from deploy.dotenv import parse_env
from deploy.host import local_host
from deploy.log import RunLog
from deploy.outcome import DeployFailed, Failure, Interrupted, Terminated, failure_of
from deploy.pipeline import execute, terminable, undisturbed
from deploy.probe import Probe
from deploy.redact import Redactor, secret_values
from deploy.report import record as records
from deploy.run import Run

RESULT = "result "
HAND_OVER = "cutover"  # the last step of whoever starts us
DIED = 3
UNBEGUN = 4
ROOM = 256 * 1024  # bytes that are kept for the result
LOOKING = 10.0  # seconds that somebody who only looks may take
BEGINNING = 10.0  # seconds that the start of the work may take on a busy host
POLL = 0.02  # seconds between two looks at what the work writes


def main(words: list[str]) -> int:
    """Run a plan, or follow one.

    Args:
        words: `run PLAN`, or `follow PLAN LINES` with the lines that were seen already.

    Returns:
        The exit code of this process; how the work ended stands in its result.
    """
    verb, path = words[0], Path(words[1])
    if verb == "run":
        return work(path)
    return follow(path, int(words[2]))


def work(path: Path) -> int:
    """Run the plan in a file; nothing else runs detached on this host meanwhile."""
    plan = json.loads(path.read_text())
    room = _reserve(path)
    log = RunLog(Redactor(), sys.stdout)
    run = plans.run_of(plan, replace(local_host(log), name=plan["host"]), log)
    run.detached = True
    with Path(run.layout.working).open("a+") as held:
        _claim(held.fileno())
        held.truncate(0)
        held.write(json.dumps({"run": run.id, "pid": os.getpid(), "kind": run.kind}))
        held.flush()
        signal.signal(signal.SIGALRM, _late)
        signal.alarm(int(plan["deadline"]))
        failure = perform(run, path.with_suffix(".stop"))
        signal.alarm(0)
        with undisturbed():
            room.write(_finish(run, failure))
    return 0


def _claim(file: int) -> None:
    # Who looks whether somebody is at work holds it for a moment.
    ends = time.monotonic() + LOOKING
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
            time.sleep(POLL)  # the interval of a poll that has a deadline
        else:
            return


@dataclass(frozen=True)
class Room:
    """Room on the disk for the result, taken before anything is begun.

    A disk that fills meanwhile must not keep whoever waits from being told.
    """

    part: Path
    path: Path

    def write(self, data: bytes) -> None:
        """Put the result in place."""
        with self.part.open("r+b") as stream:
            stream.write(data)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
        self.part.replace(self.path)


def _reserve(path: Path) -> Room:
    room = Room(path.with_suffix(".part"), result_path(path))
    with room.part.open("wb") as stream:
        room.part.chmod(0o600)
        os.posix_fallocate(stream.fileno(), 0, ROOM)
    return room


def perform(run: Run, stop: Path) -> Failure | None:
    """Run the steps of this kind of run; return what ended it, after the way back.

    Args:
        run: The run.
        stop: A file that is there when somebody wanted it to stop before it could hear that.
    """
    log = run.log
    log.learn(_secrets(run))
    run.releases = releases.load(run.target, run.layout)
    settings = run.settings
    door = traffic.inside(settings)
    paths = dict.fromkeys(
        [settings.app.health_path, *(item.path for item in settings.smoke.checks)]
    )
    run.probe = Probe(door.url, tuple(paths), door.at)
    if run.previous:
        run.probe.begin()
    failure: Failure | None = None
    try:
        with terminable():
            _heed(stop)
            execute(run, steps.detached(run.kind))
    except (Failure, KeyboardInterrupt) as error:
        with undisturbed():
            failure = verdict.settle(run, failure_of(error))
    with undisturbed():
        found = run.probe.end()
    if found:
        run.facts["availability"] = found.as_json()
        log.say(f"  availability: {found.as_text()}")
        if found.failed and run.previous:
            run.warn(f"requests failed at the front door meanwhile: {found.as_text()}")
    return failure


def _heed(stop: Path) -> None:
    if stop.exists():
        kind = Terminated if stop.read_text().strip() == "TERM" else Interrupted
        raise kind(kind.__name__, next_step="inv status")


def _secrets(run: Run) -> tuple[str, ...]:
    file = run.layout.env_file
    if hasattr(run, "release"):  # all that stands there, and what the caller added
        file = run.layout.place(run.release.id, run.release.tag).env_file
    return secret_values(parse_env(hosts.read(journal.bookkeeping(run.target), file), file))


def _finish(run: Run, failure: Failure | None) -> bytes:
    record = records.build(run, failure, datetime.now(UTC))
    if failure:
        run.log.write(failure.as_text())
    # Whoever started this adds what it knows; when it is gone, this is the record. A disk that
    # is full may keep neither, and must not keep the result too.
    with contextlib.suppress(Failure, OSError):
        journal.keep_record(run, record)
        journal.keep_log(run)
        public.write(Path(run.layout.root))
    result = run.log.redactor.mask_all(plans.result_of(run, failure))
    return json.dumps(result, ensure_ascii=False).encode()


def result_path(path: Path) -> Path:
    """Return where the result of a plan is written."""
    return path.with_suffix(".result")


def _late(_number: int, _frame: FrameType | None) -> None:
    raise DeployFailed(
        "The host's part of the run did not end in time, and was undone",
        next_step="inv status; inv report",
    )


def follow(path: Path, seen: int) -> int:
    """Write the lines of work as they come, then its result.

    Returns:
        `DIED` when it ended without a result, `UNBEGUN` when nobody has started it.
    """
    out, result, alive = path.with_suffix(".out"), result_path(path), True
    if not out.exists():
        return UNBEGUN
    with out.open("rb") as stream:
        for _ in range(seen):
            stream.readline()
        while True:
            ended = result.exists()
            alive = ended or _alive(path)
            for line in stream:
                _write(line)
            if ended:
                _write(RESULT.encode() + result.read_bytes() + b"\n")
                return 0
            if not alive and not result.exists():
                return DIED if _begun(path) else _forget(path)
            if not alive:
                return 0
            time.sleep(POLL)  # the interval of a poll; who asks for it sets the deadline


def _alive(path: Path) -> bool:
    """Tell whether the work goes on, or is just being started, where it cannot be seen yet."""
    try:
        number = path.with_suffix(".pid").read_text().strip()
    except OSError:
        number = ""
    if not number:
        return _beginning(path)
    try:
        words = Path("/proc", number, "cmdline").read_bytes()
    except OSError:
        return False
    return str(path).encode() in words or _beginning(path)


def _begun(path: Path) -> bool:
    """Tell whether it was ever started: who starts it may be interrupted just before.

    After a power cut the journal alone is sure to be there: it ends with the hand-over then.
    """
    number = path.with_suffix(".pid")
    if path.with_suffix(".part").exists() or (number.exists() and number.read_text().strip()):
        return True
    try:
        *_, last = path.with_suffix(".jsonl").read_text().splitlines()
        return str(json.loads(last)["step"]) != HAND_OVER
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _forget(path: Path) -> int:
    """Take back what was to be done, so that nobody begins it yet."""
    for suffix in (".plan", ".out"):
        path.with_suffix(suffix).unlink(missing_ok=True)
    return UNBEGUN


def _beginning(path: Path) -> bool:
    return time.time() - path.with_suffix(".out").stat().st_mtime < BEGINNING


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def document(text: str) -> dict[str, Any]:
    """Given a line of `follow`, return the result in it, empty when it is none."""
    if not text.startswith(RESULT):
        return {}
    found = json.loads(text.removeprefix(RESULT))
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
