"""What Alembic migrations that wait would do to users: a look at their text, which never runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from deploy.postgres import upgrades
from deploy.postgres.changes import findings
from deploy.postgres.upgrades import Script

FILE = re.compile(r"(?!\.#|__init__)[^/]*\.py")  # what Alembic takes for a migration


@dataclass(frozen=True)
class Migration:
    """A migration that was not applied yet.

    Args:
        file: The file's name.
        revision: Its revision, empty when that cannot be read.
        down: The revisions that come before it: what it follows and what it depends on.
        findings: What its upgrade does that hurts, a sentence each.
    """

    file: str
    revision: str
    down: tuple[str, ...]
    findings: tuple[str, ...] = ()


def look(files: Mapping[str, str], heads: Sequence[str]) -> tuple[str, ...]:
    """Return what the waiting migrations do that code alone cannot undo, or that blocks users.

    Args:
        files: The texts of the files in the versions folder, by name.
        heads: The revisions that the database is at.
    """
    return tuple(said for item in pending(files, heads) for said in item.findings)


def pending(files: Mapping[str, str], heads: Sequence[str]) -> tuple[Migration, ...]:
    """Return the migrations that were not applied yet, in an order in which they can run.

    A file that cannot be read comes first, with a finding: whether it was applied is unknown.

    Args:
        files: The texts of the files in the versions folder, by name.
        heads: The revisions that the database is at.
    """
    names = sorted(name for name in files if FILE.fullmatch(name.rpartition("/")[2]))
    scripts: dict[str, list[Script]] = {}  # two files may claim one revision
    for script in (upgrades.read(name, files[name]) for name in names):
        scripts.setdefault(script.revision, []).append(script)
    unread = scripts.pop("", [])
    down = _parents(scripts)
    applied = _ancestors(down, heads)
    order, circle = _ordered({name: down[name] for name in down if name not in applied})
    found, made = [], frozenset[str]()
    for script in (*unread, *(item for name in order + circle for item in scripts[name])):
        lost = [name for name in down.get(script.revision, ()) if name not in down]
        said = [*script.wrong, *(f"follows {name}, which no file has" for name in lost)]
        if script.revision in circle:
            said.append("follows itself in a circle, or what does")
        harm, made = findings(script.changes, made)
        sentences = tuple(f"{script.file}: {text}" for text in (*said, *harm))
        found.append(Migration(script.file, script.revision, script.down, sentences))
    return tuple(found)


def _parents(scripts: Mapping[str, Iterable[Script]]) -> dict[str, list[str]]:
    """Return what comes before each revision; a label means the revision that carries it."""
    everything = [script for same in scripts.values() for script in same]
    labels = {label: script.revision for script in everything for label in script.labels}
    return {
        revision: [labels.get(name, name) for script in same for name in script.down]
        for revision, same in scripts.items()
    }


def _ancestors(down: Mapping[str, Iterable[str]], heads: Iterable[str]) -> set[str]:
    found: set[str] = set()
    left = list(heads)
    while left:
        revision = left.pop()
        if revision not in found:
            found.add(revision)
            left += down.get(revision, ())
    return found


def _ordered(waiting: Mapping[str, Iterable[str]]) -> tuple[list[str], list[str]]:
    """Return revisions after those before them, and apart what is in a circle or behind one."""
    graph = {name: [item for item in before if item in waiting] for name, before in waiting.items()}
    sorter = TopologicalSorter(graph)
    with suppress(CycleError):
        sorter.prepare()
    order: list[str] = []
    while ready := sorter.get_ready():
        order += ready
        sorter.done(*ready)
    done = set(order)
    return order, [name for name in waiting if name not in done]
