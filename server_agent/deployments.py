"""What the deployment pipeline did, as far as it told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "history.json"  # in the folder that the pipeline writes to
SHOWN = 5
LARGEST = 1 << 20  # bytes of it that are read


def last(folder: str) -> str:
    """Return the last deployments, the newest first, a line each; or why there are none."""
    if not folder:
        return "Nobody tells me of deployments: FACTS_DIR is not set."
    try:
        with (Path(folder) / FILE).open("rb") as stream:
            found = json.loads(stream.read(LARGEST))
    except FileNotFoundError:
        return f"I was told of no deployment yet: there is no {FILE}."
    except (OSError, ValueError, RecursionError) as error:
        return f"{FILE} cannot be read: {type(error).__name__}."
    if not isinstance(found, list):
        return f"{FILE} holds no list of deployments."
    return "\n".join(line(item) for item in found[:SHOWN]) or "There was no deployment yet."


def line(record: Any) -> str:
    """Return a deployment in a line, whatever its record lacks."""

    def word(name: str, most: int = 40) -> str:
        value = record.get(name) if isinstance(record, dict) else None
        return " ".join(("?" if value is None else str(value)).split())[:most]

    made = f"{word('started', 16)} {word('kind')} {word('ref')} ({word('sha', 7)})"
    return f"{made}: {word('outcome')} (code {word('code')}), {word('seconds', 6)} s, {word('who')}"
