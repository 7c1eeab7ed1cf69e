"""One run at a time on a host, whatever started it: a lock that dies with its owner.

The kernel holds it (flock) for a process on the host that lives as long as it hears from us.
When we are killed its input ends, when the link stalls it hears nothing for `SILENCE`, and
when the host reboots it is gone: a dead owner's lock is free, by nobody's clock.
"""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict, dataclass, replace

from deploy.command import Command, script
from deploy.host import Host, Process
from deploy.layout import Layout
from deploy.outcome import Busy, Failure, Invalid, Unreachable

HELD = 75  # EX_TEMPFAIL
BEAT = 5.0  # seconds between two signs of life
SILENCE = 30  # seconds without one after which the owner counts as dead
SILENT = 0  # what the process ends with when it hears nothing
LONGEST = 7 * 86_400.0  # seconds; nothing runs that long
LEAST = 1.0  # seconds to wait: who only looks holds it for a moment too

# What the owner has left running ends with the lock, except what runs detached.
# All in one go, since a rollback waits for it.
HOLD = """
umask 077
path=$1; wait=$2; held=$3; silence=$4; journal=$5; shift 5
for folder in "$@"; do
  [ -d "$folder" ] || mkdir -p -- "$folder"
done
chmod -- 0755 "$1"
exec 9>>"$path"
if ! flock --timeout "$wait" 9; then cat -- "$path.owner" 2>/dev/null || true; exit "$held"; fi
trap '' TERM HUP INT PIPE
echo "$$" >"$path.pid"
if [ -e "$path.owner" ]; then echo "left $(tr -d '\\n' <"$path.owner")"; fi
echo "newest $(ls -1 -- "$journal" | sed -n 's/[.]jsonl$//p' | sort | tail -n 1)"
echo held
while IFS= read -r -t "$silence" line; do
  case $line in
    beat) ;;
    bye) break ;;
    # A disk that is full must not end it.
    *) { printf '%s\\n' "$line" >"$path.part" && mv -T -- "$path.part" "$path.owner"; } || true ;;
  esac
done
for found in $(grep -lsz -- "^DEPLOY_LINK=${DEPLOY_LINK%.*}[.]" /proc/[0-9]*/environ); do
  process=${found#/proc/}; process=${process%/environ}
  case $process in "$$" | "$PPID") ;; *) kill -TERM "$process" 2>/dev/null || true ;; esac
done
if [ "${line-}" = bye ]; then rm -f -- "$path.owner" "$path.pid"; fi
"""
# Under the lock, so that it is nobody else's meanwhile.
DISOWN = """
exec 9>>"$1"
flock --nonblock 9 || exit 0
if [ -e "$1.owner" ] && grep -qF -- "$2" "$1.owner"; then rm -f -- "$1.owner" "$1.pid"; fi
"""
LOOK = """
[ -e "$1" ] || exit 0
if flock --shared --nonblock "$1" true; then exit 0; fi
echo held
cat -- "$1.owner" 2>/dev/null || true
"""
LEFT = """
[ -e "$1.owner" ] || exit 0
flock --shared --nonblock "$1" cat -- "$1.owner" || true
"""
BREAK = """
if [ -e "$1" ] && ! flock --shared --nonblock "$1" true; then kill -KILL "$(cat -- "$1.pid")"; fi
flock --timeout 10 "$1" true
"""


@dataclass(frozen=True)
class Owner:
    """Who holds the lock, and at which step it is."""

    run: str
    what: str
    who: str
    machine: str
    since: str
    step: str = ""

    def as_text(self) -> str:
        """Say it in half a sentence."""
        at = f", at step {self.step}" if self.step else ""
        return f"{self.what} {self.run} by {self.who} on {self.machine} since {self.since}{at}"


NOBODY = Owner("", "somebody", "somebody who left no readable name", "", "")


class Held:
    """A lock that is ours until we give it back, or are not heard of any more.

    Args:
        process: The process on the host that holds it.
        owner: We.
        left: The owner before, when it ended without giving the lock back.
        newest: The newest run that has a journal, empty when there is none.
    """

    def __init__(self, process: Process, owner: Owner, left: Owner | None, newest: str) -> None:
        self.left, self.newest = left, newest
        self._process, self._owner = process, owner
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.at("")
        self._thread.start()

    def at(self, step: str) -> None:
        """Let others see which step we are at."""
        self._say(json.dumps(asdict(replace(self._owner, step=step))))

    def lost(self) -> bool:
        """Tell whether somebody broke the lock, or the link to it."""
        try:
            self.check()
        except Failure:
            return True
        return False

    def check(self) -> None:
        """See that it is still ours.

        Raises:
            Busy: Somebody broke it.
            Unreachable: The link was down, for a moment or for too long.
        """
        try:
            code = self._process.wait(0)
        except Unreachable:
            code = SILENT
        if code == SILENT:
            raise Unreachable(
                "The link to the host was lost, and the lock with it",
                next_step="inv status shows what is live; the next run cleans up",
            )
        if code is not None:
            raise Busy("The lock was lost: somebody broke it", next_step="inv status; inv history")

    def give_back(self) -> None:
        """Release the lock."""
        self._ended.set()
        self._say("bye")
        with contextlib.suppress(Unreachable):
            self._process.wait(BEAT)
        self._process.stop()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._say("beat")

    def _say(self, line: str) -> None:
        with self._writing, contextlib.suppress(OSError):  # lost() tells it
            self._process.write(f"{line}\n".encode())


def take(host: Host, layout: Layout, owner: Owner, wait: float = 0) -> Held:
    """Make the folders that a run needs, and take the lock in them.

    Args:
        host: Where the lock is.
        layout: Where everything lies there.
        owner: Who takes it.
        wait: Seconds to wait for the one who has it.

    Raises:
        Busy: Another run holds it; the message says which.
        Invalid: The folders cannot be made, or the lock file not be written.
    """
    process = host.start(_hold(layout, wait))
    said = b""
    while not said.endswith(b"held\n") and (more := process.read()):
        said += more
    text = said.decode(errors="replace")
    if text.endswith("held\n"):
        told = dict(line.partition(" ")[::2] for line in text.splitlines())
        left = (parse(told["left"]) or NOBODY) if "left" in told else None
        return Held(process, owner, left, told.get("newest", ""))
    why = process.read_error().decode(errors="replace").strip()
    code = process.wait(BEAT)
    process.stop()
    if code == HELD:
        raise Busy(
            "Another run holds the lock",
            where=f"{host.name}:{layout.lock}",
            why=(parse(text) or NOBODY).as_text(),
            next_step="wait for it with --wait SECONDS; see what it is: inv status; inv unlock",
        )
    raise Invalid(
        "The lock on the host, or the folders around it, cannot be made",
        where=f"{host.name}:{layout.root}",
        why=why,
        next_step=f"make {layout.root} writable for this user, or set deploy.root",
    )


def _hold(layout: Layout, wait: float) -> Command:
    words = (layout.lock, f"{max(LEAST, wait):g}", str(HELD), str(SILENCE), layout.journal)
    return script(HOLD, *words, *layout.folders, stdin=b"", deadline=LONGEST)


def look(host: Host, path: str) -> Owner | None:
    """Return who holds the lock now, or None."""
    held, _, text = host.ask(script(LOOK, path, deadline=20)).partition("\n")
    return (parse(text) or NOBODY) if held else None


def left(host: Host, path: str) -> Owner | None:
    """Return whose run was killed while it held the lock, unless a run holds it now."""
    text = host.ask(script(LEFT, path, deadline=20))
    return (parse(text) or NOBODY) if text else None


def disown(host: Host, path: str, owner: Owner) -> None:
    """Give back a lock that was lost with its link: its run needs nobody to settle it."""
    host.ask(script(DISOWN, path, f'"{owner.run}"', deadline=20))


def break_open(host: Host, path: str) -> None:
    """Take the lock away from whoever holds it; its run ends before its next step."""
    host.ask(script(BREAK, path, deadline=30))


def parse(text: str) -> Owner | None:
    """Given the words of a lock's owner, return it, or None when they make no sense."""
    try:
        data = json.loads(text)
        names = ("run", "what", "who", "machine", "since", "step")
        return Owner(**{key: str(data[key]) for key in names})
    except (ValueError, KeyError, TypeError):
        return None
