"""What the application may read about its deployments, written on the host.

`python3 - ROOT <public.py` does it: the standard library and this file are all it takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

MOST = 20  # runs that are told
LONGEST = 200  # characters of a text
RECORD = re.compile(r"[0-9_-]+\.json")
TOLD = (*("id", "kind", "outcome", "code", "sha", "ref", "release", "started", "seconds", "who"),)


def write(root: Path) -> None:
    """Write what the newest runs and the newest good backup were.

    Args:
        root: The folder of the application on its host.
    """
    folder = root / "public"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    _replace(folder / "history.json", list(islice(_runs(root / "records"), MOST)))
    _replace(folder / "backup.json", max(_backups(root / "backups"), key=_age, default=None))


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    """Return the runs that a folder of records tells of, newest first."""
    for name in sorted((item for item in _names(folder) if RECORD.fullmatch(item)), reverse=True):
        found = _read(folder / name)
        if all(isinstance(found.get(key), str | int | float) for key in TOLD):
            yield {key: _short(found[key]) for key in TOLD}


def _backups(folder: Path) -> Iterator[dict[str, Any]]:
    """Return the good backups of a folder: those that are what their manifests describe."""
    for name in _names(folder):
        found, file = _read(folder / name), folder / name.removesuffix(".json")
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            good = found["state"] == "good" and found["bytes"] == file.stat().st_size
            if name.endswith(".json") and good and datetime.fromisoformat(found["at"]).tzinfo:
                told = {key: found[key] for key in ("at", "state", "bytes")}
                yield {"name": file.name, **told}


def _age(backup: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(backup["at"])


def _names(folder: Path) -> list[str]:
    return [item.name for item in folder.iterdir()] if folder.is_dir() else []


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> Any:
    return value[:LONGEST] if isinstance(value, str) else value


def _replace(path: Path, value: Any) -> None:
    """Put a file in place by rename, so that nobody ever sees half of it."""
    number, part = tempfile.mkstemp(prefix=".part.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
            os.fchmod(stream.fileno(), 0o644)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink()
        raise


if __name__ == "__main__":
    write(Path(sys.argv[1]))
