"""By cron, where there is no systemd: a marked line in the user's crontab."""

from __future__ import annotations

import base64
import hashlib

from deploy.command import script
from deploy.host import Host
from deploy.schedule.job import PATH, Job

DAY = 24 * 60  # minutes
# As base64: what others have written there need not be UTF-8, and comes back byte for byte.
READ = """
export LC_ALL=C
part=$(mktemp); trap 'rm -f -- "$part"' EXIT
if ! said=$(crontab -l 2>&1 >"$part"); then
  case $said in *"no crontab for"* | *"No such file"*) ;; *) echo "$said" >&2; exit 1 ;; esac
fi
base64 -w 0 -- "$part"
"""
# Unless somebody else has changed it meanwhile.
WRITE = """
read -r now _ < <(crontab -l 2>/dev/null | sha256sum)
if [ "$now" != "$1" ]; then echo 'the crontab was changed meanwhile' >&2; exit 1; fi
crontab -
"""
THERE = 'crontab -l 2>/dev/null | grep -q -- " # $1\\$"'
OFFSET = "env -u TZ date +%z"  # cron knows no time but the host's


def line(job: Job, offset: int) -> bytes:
    """Return the line of a job.

    Args:
        job: The job.
        offset: Minutes that the host's clock is before UTC.
    """
    hour, minute = divmod((minutes(job.at) + offset) % DAY, 60)
    what = f"cd {job.library} && PATH={PATH} {job.line} >/dev/null".replace("%", r"\%")
    return f"{minute} {hour} * * * {what}".encode() + _mark(job.name)


def minutes(text: str) -> int:
    """Given `HH:MM`, or what date(1) calls an offset, return the minutes."""
    digits = text.replace(":", "")
    whole = int(digits[-4:-2]) * 60 + int(digits[-2:])
    return -whole if digits.startswith("-") else whole


def merged(table: bytes, name: str, wanted: bytes | None) -> bytes:
    """Given a crontab, return it with one line of that name, or with none; others stay."""
    lines = table.splitlines(keepends=True)
    ours = [number for number, text in enumerate(lines) if text.rstrip().endswith(_mark(name))]
    kept = [text for number, text in enumerate(lines) if number not in ours]
    if wanted is None:
        return b"".join(kept)
    place = ours[0] if ours else len(kept)
    before, after = b"".join(kept[:place]), b"".join(kept[place:])
    if before and not before.endswith(b"\n"):  # a line that does not end would take ours in
        before += b"\n"
    return before + wanted + b"\n" + after


def _mark(name: str) -> bytes:
    return f" # {name}".encode()


def put(host: Host, job: Job) -> bool:
    """Have cron start a job; return whether it did not do so already."""
    offset = minutes(host.ask(script(OFFSET)).strip())
    return _change(host, job.name, line(job, offset))


def there(host: Host, name: str) -> bool:
    """Tell whether cron starts a job of that name."""
    return host.run(script(THERE, name)).ok


def remove(host: Host, name: str) -> bool:
    """Have cron start a job no more; return whether it did so."""
    return _change(host, name, None)


def _change(host: Host, name: str, wanted: bytes | None) -> bool:
    before = base64.b64decode(host.ask(script(READ)))
    after = merged(before, name, wanted)
    if after == before:
        return False
    host.ask(script(WRITE, hashlib.sha256(before).hexdigest(), stdin=after))
    return True


def told(_job: Job) -> str:
    """Say who starts a job."""
    return "by cron"
