"""Our side of detached work: start it on the host, follow it, and find it again."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from deploy.command import Command, script
from deploy.detached import plan as plans
from deploy.detached import work
from deploy.host import Host
from deploy.host.process import CommandFailed, Result, failed
from deploy.journal import bookkeeping
from deploy.layout import Layout
from deploy.library import Bundle, bundle, install
from deploy.outcome import DeployFailed, Failure, Interrupted, Terminated, Unreachable
from deploy.pipeline import Done, handled
from deploy.run import Run

MARGIN = 60.0  # seconds beyond its deadline after which work that does not answer is given up
TWICE = 1.0  # seconds within which a key was pressed for the same reason
AGAIN = 1.0  # seconds between two tries to reach the host

ABSENT = 66  # EX_NOINPUT
# Free of our link: what that leaves running ends with it, and this must not. Who wants it to
# stop may be faster than it can listen: until then it hears nothing, and reads it from a file.
START = """
umask 077
cd -- "$1" 2>/dev/null || { cat >/dev/null; exit "$4"; }
cat >"$2.part"
[ "$(stat -c %s -- "$2.part")" = "$5" ] # who was interrupted sends half of it
sync -- "$2.part"
mv -T -- "$2.part" "$2.plan"
: >"$2.out"
rm -f -- "$2.result"
trap '' INT TERM
env -u DEPLOY_LINK PYTHONPATH="$1" setsid "$3" -s -m deploy.detached.work run "$2.plan" \
  </dev/null >>"$2.out" 2>&1 &
echo "$!" >"$2.pid"
"""
FOLLOW = 'cd -- "$1"; PYTHONPATH="$1" exec "$3" -s -m deploy.detached.work follow "$2.plan" "$4"'
WORKING = 'if [ -e "$1" ] && ! flock --shared --nonblock "$1" true; then cat -- "$1"; fi'
END = r"""
kill -s TERM -- "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$1")"
flock --shared --timeout 120 "$1" true
"""
ENDING = 120.0  # seconds that it gets to undo
TELL = """
umask 077
{ echo "$2" >"$1.stop.part" && mv -T -- "$1.stop.part" "$1.stop"; } || true
kill -s "$2" -- "$(cat -- "$1.pid")" 2>/dev/null || true
"""


class HostKilled(DeployFailed):
    """What the host did by itself ended without a word: it was killed, or the host restarted."""


def hand_over(run: Run) -> Done:
    """Let the host go on with the run by itself, and follow it to its end.

    Raises:
        Failure: How the host's part failed, as it stands after the way back.
        Unreachable: The host does not answer any more; it goes on by itself.
    """
    found = bundle()
    library = f"{run.layout.library}/{found.name}"
    stem = f"{run.layout.journal}/{run.id}"
    plan = plans.plan_of(run)
    text = json.dumps(plan, ensure_ascii=False).encode()
    size = str(len(text))
    start = script(START, library, stem, run.target.python, str(ABSENT), size, stdin=text)
    if run.held:
        run.held.check()
    # From here on the host undoes by itself what has to be undone.
    run.committed = True
    with _wishes() as wish:
        try:
            _start(run, start, found, wish)
        except CommandFailed:
            run.committed = False
            raise
        result = _follow(run, library, stem, plan["deadline"], wish)
    failure = plans.take_in(run, result)
    if failure:
        raise failure
    return Done("the host is done")


class _Woken(BaseException):
    """Somebody wants the host to stop, and we were waiting."""


@dataclass
class Wish:
    """That the host stops: kept until we can see to it, however often it is said.

    Args:
        kind: How it was said, None for not.
        since: When it was.
        again: Whether it was said once more, a while later.
        told: Whether the host knows.
        waiting: Whether it may end what we wait for.
    """

    kind: type[Interrupted | Terminated] | None = None
    since: float = 0.0
    again: bool = False
    told: bool = False
    waiting: bool = False

    def hear(self, kind: type[Interrupted | Terminated]) -> None:
        """Take note of it; who says it twice in a moment has said it once."""
        now = time.monotonic()
        if not self.kind:
            self.kind, self.since = kind, now
        self.again = now - self.since > TWICE

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Let a wish end what we wait for."""
        self.waiting = True
        try:
            if self.kind and not self.told:  # it came a moment ago
                raise _Woken
            yield
        finally:
            self.waiting = False


@contextlib.contextmanager
def _wishes() -> Iterator[Wish]:
    wish = Wish()

    def hear(number: int, _frame: FrameType | None) -> None:
        wish.hear(Terminated if number == signal.SIGTERM else Interrupted)
        if wish.waiting:
            wish.waiting = False
            raise _Woken

    with handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM), hear)):
        yield wish


def _start(run: Run, start: Command, found: Bundle, wish: Wish) -> None:
    quiet = bookkeeping(run.target)
    try:
        with wish.heeded():
            started = quiet.run(start)
            if started.code == ABSENT:
                quiet.ask(install(found, run.layout.library))
                started = quiet.run(start)
    except Unreachable:
        run.log.say("  the link was lost as the host took over")
        return
    except _Woken:  # whether it has begun is found out by following it
        return
    if not started.ok:
        raise failed(run.target.name, start, started)


def _follow(run: Run, library: str, stem: str, deadline: float, wish: Wish) -> dict[str, object]:
    ends = time.monotonic() + deadline + MARGIN
    seen: list[str] = []
    result: dict[str, object] = {}
    pause = 0.0

    def heard(line: str) -> None:
        found = work.document(line)
        if found:
            result.update(found)
        else:
            seen.append(line)
            run.log.echo(line)

    while not result:
        left = ends - time.monotonic()
        if left <= 0:
            raise _unknown(run)
        if wish.again:
            raise _left_alone(run, wish)
        try:
            _tell(run, stem, wish)
            with wish.heeded():
                time.sleep(min(pause, left))  # between two tries, up to a deadline
                pause = 0.0
                code = bookkeeping(run.target).run(
                    _following(run, library, stem, len(seen), left), heard
                )
        except Unreachable as error:
            run.log.say(f"  {error.what}; the host goes on by itself, attaching again")
            pause = AGAIN
            continue
        except _Woken:
            continue
        if not result:
            raise _without_a_result(run, code, seen, wish)
    return result


def _without_a_result(run: Run, ended: Result, seen: list[str], wish: Wish) -> Failure:
    if ended.code == work.UNBEGUN:
        run.committed = False  # nor has the host anything to undo
        if wish.kind:
            return wish.kind(wish.kind.__name__, next_step="inv status")
        return Unreachable(
            "The link was lost before the host took over",
            where=run.target.name,
            next_step="inv status; then deploy again",
        )
    if ended.code == work.DIED:
        return HostKilled(
            "The host's part of the run was killed",
            where=run.target.name,
            why="\n".join(seen[-5:]),
            next_step="inv status; the next run finds what was left and cleans up",
        )
    return DeployFailed("The host's part of the run cannot be followed", why=ended.tail(5))


def _following(run: Run, library: str, stem: str, seen: int, left: float) -> Command:
    return script(FOLLOW, library, stem, run.target.python, str(seen), deadline=left)


def _tell(run: Run, stem: str, wish: Wish) -> None:
    if not wish.kind or wish.told:
        return
    run.log.say("  stopping: the host ends at its next safe point, undoing what it must")
    name = "INT" if wish.kind is Interrupted else "TERM"
    bookkeeping(run.target).run(script(TELL, stem, name, deadline=20))
    wish.told = True


def _left_alone(run: Run, wish: Wish) -> Failure:
    if not wish.kind or not wish.told:
        return _unknown(run)
    return wish.kind(
        f"{wish.kind.__name__}; the host was told, and undoes by itself what it must",
        where=run.target.name,
        next_step="inv status shows what is live, inv report how it ended",
    )


def working(host: Host, layout: Layout) -> str:
    """Return the run that the host goes on with by itself now, empty when there is none."""
    text = host.ask(script(WORKING, layout.working)).strip()
    try:
        return str(json.loads(text)["run"]) if text else ""
    except (ValueError, KeyError, TypeError):
        return "unknown"


def end(host: Host, layout: Layout) -> None:
    """End what the host does by itself, and wait until it has undone what it must."""
    host.ask(script(END, layout.working, deadline=ENDING + 10))


def _unknown(run: Run) -> Unreachable:
    return Unreachable(
        "Nobody follows the host's part of the run any more; it goes on by itself",
        where=run.target.name,
        next_step="inv status shows what is live, inv report how it ended",
    )
