"""One run at a time on a host, whatever started it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from deploy.command import script
from deploy.host import Host
from deploy.outcome import Busy, Invalid

HELD = 75  # EX_TEMPFAIL

# A hard link appears with its whole content or not at all, and only for one.
TAKE = """
umask 077
part=$(mktemp -- "$1.XXXXXX")
trap 'rm -f -- "$part"' EXIT
cat >"$part"
sync -- "$part"
if ln -T -- "$part" "$1" 2>/dev/null; then exit 0; fi
if [ -e "$1" ]; then cat -- "$1"; exit "$2"; fi
exit 1
"""
GIVE_BACK = 'if grep -qF -- "$2" "$1" 2>/dev/null; then rm -f -- "$1"; fi'


@dataclass(frozen=True)
class Owner:
    """Who holds the lock."""

    run: str
    what: str
    who: str
    machine: str
    since: str

    def as_text(self) -> str:
        """Say it in half a sentence."""
        return f"{self.what} {self.run} by {self.who} on {self.machine} since {self.since}"


def take(host: Host, path: str, owner: Owner) -> None:
    """Take the lock.

    Raises:
        Busy: Another run holds it; the message says which.
        Invalid: The lock file cannot be written.
    """
    content = f"{json.dumps(asdict(owner))}\n".encode()
    result = host.run(script(TAKE, path, str(HELD), stdin=content, deadline=20))
    if result.ok:
        return
    if result.code == HELD:
        holder = parse(result.out)
        raise Busy(
            "Another run holds the lock",
            where=f"{host.name}:{path}",
            why=holder.as_text() if holder else "its owner cannot be read",
            next_step="wait for it; if it is dead: inv unlock",
        )
    raise Invalid("The lock cannot be written", where=f"{host.name}:{path}", why=result.tail())


def give_back(host: Host, path: str, owner: Owner) -> None:
    """Release the lock, only when this run still holds it."""
    host.ask(script(GIVE_BACK, path, json.dumps(owner.run), deadline=20))


def parse(text: str) -> Owner | None:
    """Given the content of a lock, return its owner, or None when it makes no sense."""
    try:
        data = json.loads(text)
        return Owner(**{key: str(data[key]) for key in ("run", "what", "who", "machine", "since")})
    except (ValueError, KeyError, TypeError):
        return None
