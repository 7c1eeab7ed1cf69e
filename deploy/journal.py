"""What a run did and is about to do, on the host, flushed before it does it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deploy import host as hosts
from deploy.command import script
from deploy.host import Host
from deploy.log import RunLog
from deploy.run import Run

READ_RECORDS = """
ls -1 -- "$1" 2>/dev/null | grep -E '^[0-9_-]+[.]json$' | sort -r | head -n "$2" |
while IFS= read -r name; do cat -- "$1/$name"; echo; done || true
"""


def bookkeeping(host: Host) -> Host:
    """Return the same host with a log of its own: keeping the log must not fill it."""
    return replace(host, log=RunLog(host.log.redactor, io.StringIO()))


def note(run: Run, step: str, state: str, **more: Any) -> None:
    """Append a line to the journal, and to the log file what the run has said since.

    Raises:
        Failure: The host does not keep it; so nothing that follows may be done.
    """
    now = datetime.now(UTC).isoformat()
    line = {"at": now, "kind": run.kind, "step": step, "state": state, **more}
    text = json.dumps(run.log.redactor.mask_all(line)) + "\n"
    books = bookkeeping(run.target)
    hosts.append(books, f"{run.layout.journal}/{run.id}.jsonl", text.encode())
    hosts.append(books, run.layout.log(run.started), run.log.take())


def keep_log(run: Run) -> None:
    """Append to the log file what the run has said since."""
    hosts.append(bookkeeping(run.target), run.layout.log(run.started), run.log.take())


def keep_record(run: Run, record: dict[str, Any]) -> None:
    """Write the record of a run, atomically."""
    text = json.dumps(run.log.redactor.mask_all(record), ensure_ascii=False) + "\n"
    path = f"{run.layout.records}/{run.id}.json"
    hosts.replace(bookkeeping(run.target), path, text.encode())


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
