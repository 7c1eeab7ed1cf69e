"""What a run did and is about to do, on the host, flushed before it does it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy import host as hosts
from deploy import public
from deploy.command import command, script
from deploy.host import Host
from deploy.run import Run

READ_RECORDS = """
ls -1 -- "$1" 2>/dev/null | grep -E '^[0-9_-]+[.]json$' | sort -r | head -n "$2" |
while IFS= read -r name; do cat -- "$1/$name"; echo; done || true
"""


# Both in one go, since every step waits for it; what arrives cut is not written at all.
NOTE = """
umask 077
part=$(mktemp -- "$1.XXXXXX")
trap 'rm -f -- "$part"' EXIT
cat >"$part"
[ "$(stat -c %s -- "$part")" = "$4" ]
head -c "$3" -- "$part" | dd of="$1" oflag=append conv=notrunc,fsync status=none
tail -c "+$(($3 + 1))" -- "$part" >>"$2"
"""


def bookkeeping(host: Host) -> Host:
    """Return the same host with a log of its own: keeping the log must not fill it."""
    return host.unlogged()


def note(run: Run, step: str, state: str, **more: Any) -> None:
    """Add a line to the journal; `flush` writes it."""
    now = datetime.now(UTC).isoformat()
    line = {"at": now, "kind": run.kind, "step": step, "state": state, "mark": run.mark, **more}
    run.noted.append(json.dumps(run.log.redactor.mask_all(line)) + "\n")


def flush(run: Run) -> None:
    """Write what was noted to the journal, on disk, and to the log file what the run has said.

    Raises:
        Failure: The host does not keep it; so nothing that follows may be done.
    """
    entry, said = "".join(run.noted).encode(), run.log.take()
    run.noted.clear()
    paths = (f"{run.layout.journal}/{run.id}.jsonl", run.layout.log(run.started))
    sizes = (str(len(entry)), str(len(entry) + len(said)))
    bookkeeping(run.target).ask(script(NOTE, *paths, *sizes, stdin=entry + said))


def keep_log(run: Run) -> None:
    """Append to the log file what the run has said since."""
    hosts.append(bookkeeping(run.target), run.layout.log(run.started), run.log.take())


def keep_record(run: Run, record: dict[str, Any]) -> None:
    """Write the record of a run, atomically."""
    text = json.dumps(run.log.redactor.mask_all(record), ensure_ascii=False) + "\n"
    path = f"{run.layout.records}/{run.id}.json"
    hosts.replace(bookkeeping(run.target), path, text.encode())


def keep_public(run: Run) -> None:
    """Write on the host what the application may read about its deployments."""
    program, quiet = Path(public.__file__).read_bytes(), bookkeeping(run.target)
    quiet.ask(command(quiet.python, "-I", "-", run.layout.root, stdin=program))


def records(host: Host, folder: str, limit: int) -> list[dict[str, Any]]:
    """Return the newest records of a host, newest first; a garbled one is left out."""
    found = []
    for line in host.ask(script(READ_RECORDS, folder, str(limit))).splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
