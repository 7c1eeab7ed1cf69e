"""What a deployment would do: looked at, and nothing done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy import journal, lock, origin, releases, traffic
from deploy.command import script
from deploy.detached import steps as detached
from deploy.detached.work import HAND_OVER
from deploy.pipeline import Step, ordered
from deploy.postgres import access
from deploy.postgres.operations import Migration
from deploy.run import Run
from deploy.session import Session
from deploy.steps import live, rehearse

# The same lines as those of a folder, from a commit.
VERSIONS = """
for name in $(git -C "$1" ls-tree --name-only "$2" "$3/"); do
  case "$name" in *.py) ;; *) continue ;; esac
  printf '%s %s\\n' "${name##*/}" "$(git -C "$1" show "$2:$name" | base64 -w 0)"
done
"""
Why = Mapping[str, tuple[str, str]]


def from_here(session: Session, ref: str, steps: Sequence[Step]) -> dict[str, Any]:
    """Say what `inv deploy` would do by these steps.

    Raises:
        Invalid: It would be refused; all problems are named.
    """
    run = session.run("deploy", session.here, ref)
    steps[0].apply(run)
    return plan(run, str(run.folder), steps)


def from_there(session: Session, ref: str, steps: Sequence[Step]) -> dict[str, Any]:
    """Say what `fab deploy` would do by these steps; the host fetches the code, and does no more.

    Raises:
        Invalid: It would be refused; all problems are named.
    """
    run = session.run("deploy", session.target, ref)
    steps[0].apply(run)
    url, branch = session.settings.git.url, session.settings.git.branch
    folder = session.layout.repository
    run.source = origin.from_remote(run.target, folder, url, ref, branch)
    return plan(run, folder, steps)


def plan(run: Run, repository: str, here: Sequence[Step]) -> dict[str, Any]:
    """Return what a run would do, a line for each of its steps.

    Args:
        run: The run, whose commit is known.
        repository: Where the commit is, on the machine that builds.
        here: The steps up to the hand-over.
    """
    known = releases.load(run.target, run.layout)
    run.previous = traffic.live(run.target, run.settings, known)
    notes = _notes(run, _waiting(run, repository))
    steps = [item for item in ordered(here) if item.name != HAND_OVER]
    return {
        "changes": run.previous is None or run.previous.sha != run.source.sha,
        "steps": [_line(item, notes) for item in (*steps, *detached.detached("deploy"))],
        "rollback_to": run.previous.id if run.previous else None,
    }


def as_text(found: Mapping[str, Any]) -> str:
    """Return a plan in words."""
    lines = [f"{item['name']:<10}{item['will']:<6}{item['why']}" for item in found["steps"]]
    same = "" if found["changes"] else "This commit is live already.\n"
    back = found["rollback_to"] or "nothing"
    return f"{same}" + "\n".join(lines) + f"\nA rollback afterwards would bring back {back}."


def _line(step: Step, notes: Why) -> dict[str, str]:
    will, why = notes.get(step.name, ("do", step.title))
    return {"name": step.name, "will": will, "why": why}


def _waiting(run: Run, repository: str) -> Sequence[Migration] | None:
    folder = run.settings.migrate.versions
    if not folder or not run.settings.migrate.command:
        return None
    asked = script(VERSIONS, repository, run.source.sha, folder)
    files = rehearse.parse_versions(journal.bookkeeping(run.builder).ask(asked))
    return rehearse.waiting(files, live.heads(run))


def _notes(run: Run, waiting: Sequence[Migration] | None) -> dict[str, tuple[str, str]]:
    settings, previous = run.settings, run.previous
    notes = {
        "preflight": ("do", f"{run.target.name} is ready"),
        "lock": _lock(run),
        "fetch": ("do", f"{run.source.short} ({run.source.ref})"),
        "rehearse": _rehearse(run, waiting),
        "approve": ("wait", f"for the Master, at most {settings.approval.timeout:g} s"),
        "migrate": _migrate(run, waiting),
    }
    skipped = {
        "backup": "" if _database(run) else "no database runs",
        "test": "" if settings.tests.compose_file else "no tests are configured",
        "ship": "it is built on the host" if run.builder is run.target else "",
        "tag": "" if previous else "nothing is live yet",
        "drain": "" if previous else "nothing is live yet",
    }
    return notes | {name: ("skip", why) for name, why in skipped.items() if why}


def _database(run: Run) -> bool:
    known = run.settings.database.client_image  # of what it reaches, the run will see
    return bool(known or access.container(run.target, run.settings))


def _lock(run: Run) -> tuple[str, str]:
    owner = lock.look(run.target, run.layout.lock)
    return ("wait", owner.as_text()) if owner else ("do", "it is free")


def _migrate(run: Run, waiting: Sequence[Migration] | None) -> tuple[str, str]:
    if not run.settings.migrate.command:
        return "skip", "no migrations are configured"
    if waiting is None:
        return "do", "which migrations wait is not known"
    if not waiting:
        return "do", "none waits"
    harm = [said for item in waiting for said in item.findings]
    return "do", "; ".join((", ".join(item.revision or item.file for item in waiting), *harm))


def _rehearse(run: Run, waiting: Sequence[Migration] | None) -> tuple[str, str]:
    settings = run.settings
    if not settings.migrate.command or not settings.migrate.rehearse_max_mb:
        return "skip", "not configured"
    if run.previous is None:
        return "skip", "nothing is live yet"
    if settings.database.client_image:
        return "skip", rehearse.ELSEWHERE
    if waiting is not None and not waiting:
        return "skip", "no migration is pending"
    if settings.database.encrypt_to:
        return "skip", rehearse.UNREADABLE
    return "do", "it says whether it is safe to roll back"
