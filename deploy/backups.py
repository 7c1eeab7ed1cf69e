"""The verbs about backups: taken, listed, verified, restored."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy import runbook, terminal
from deploy.command import command
from deploy.conduct import conduct
from deploy.outcome import DataFailed, Invalid
from deploy.pipeline import Step
from deploy.postgres import backup
from deploy.postgres import download as downloading
from deploy.postgres import restore as restoring
from deploy.postgres.backup import Backup
from deploy.report import text
from deploy.session import Session
from deploy.settings import LONGEST_KEPT, Keep, Settings
from deploy.steps import data


def back_up(session: Session, keep: str, *, download: bool) -> dict[str, Any]:
    """Back up the database on the host; with `download`, copy it here and check it.

    Args:
        session: The session.
        keep: Days that backups are kept, empty for what invoke.yaml says.
        download: Whether to copy it into `backups/` here.
    """
    kept = days(keep) if keep else 0
    run = session.run("backup", session.target)
    if kept:
        run.settings = with_keep(run.settings, kept)
    conduct(run, runbook.backup())
    taken = run.backup
    if taken is None:
        raise DataFailed("The backup left nothing", where=session.target.name)
    return described(taken, brought_home(session, taken) if download else None)


def download(session: Session, file: str) -> dict[str, Any]:
    """Copy a backup that the host has into `backups/` here, and check it.

    Args:
        session: The session.
        file: One of them, by its name; empty for the newest good one.

    Raises:
        DataFailed: There is no such good one, or it did not arrive.
    """
    saved = backup.listing(session.target, session.layout.backups)
    good = [item for item in saved if item.state == "good"]
    chosen = data.one_of(good, file)
    if not chosen:
        raise DataFailed(
            f"There is no good backup {file[:80]}".rstrip(),
            where=f"{session.target.name}:{session.layout.backups}",
            why="without a good manifest nobody knows what must arrive" if file else "",
            next_step="inv backup.list shows which there are, inv backup takes one",
        )
    return described(chosen[0], brought_home(session, chosen[0]))


def brought_home(session: Session, item: Backup) -> Path:
    """Copy a backup into `backups/` here."""
    return downloading.download(session.target, item, session.folder / "backups", session.log.say)


def described(item: Backup, copy: Path | None) -> dict[str, Any]:
    """Return a backup, and where its copy is here, as `--json` prints it."""
    return {
        "name": item.name,
        "path": item.path,
        "bytes": item.bytes,
        "sha256": item.sha256,
        "rows": item.rows,
        "downloaded": str(copy) if copy else None,
    }


def days(text: str) -> int:
    """Given what was typed, return the days that backups are kept.

    Raises:
        Invalid: It is no such number.
    """
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LONGEST_KEPT:
        return int(text)
    wanted = f"a number of days, at least 1 and at most {LONGEST_KEPT}"
    raise Invalid(f"--keep must be {wanted}, not {text[:40]!r}", where="--keep")


def backup_as_text(found: dict[str, Any]) -> str:
    """Return what a backup came to, in words."""
    copied = f", copied to {found['downloaded']}" if found["downloaded"] else ""
    return f"{found['path']}: {found['rows']} rows, {found['bytes']} bytes{copied}"


def with_keep(settings: Settings, days: int) -> Settings:
    """Return the settings with the number of days that backups are kept, and no other rule."""
    database = settings.database.model_copy(update={"keep_days": days, "keep": Keep()})
    return settings.model_copy(update={"database": database})


def listed(session: Session) -> list[dict[str, Any]]:
    """Return the backups on the host, newest first, as their manifests describe them."""
    found = backup.listing(session.target, session.layout.backups)
    known = (
        "name",
        "path",
        "at",
        "state",
        "why",
        "bytes",
        "sha256",
        "rows",
        "release",
        "verified",
        "copied",
    )
    return [{name: getattr(item, name) for name in known} for item in found]


def listed_as_text(found: list[dict[str, Any]]) -> str:
    """Return the backups, a line each."""
    now = datetime.now(UTC)
    return "\n".join(backup_line(item, now) for item in found) or "There is no backup yet."


def backup_line(item: dict[str, Any], now: datetime) -> str:
    """Return a backup in a line: its state, age, size, rows and release."""
    age = restoring.age(item["at"], now) if item["at"] else "age unknown"
    why = f"  {item['why']}" if item["why"] else ""
    rows = f"{item['rows']} rows" if item["state"] == "good" else ""
    return (
        f"{item['name']}  {item['state']:<11}{age:>11}{item['bytes'] / 1e6:>10.1f} MB"
        f"  {rows:<14}{item['release']}{why}"
    )


def verify(session: Session, file: str, *, every: bool, by_restoring: bool) -> list[dict[str, Any]]:
    """See whether backups are what their manifests say, and write down what was found.

    Args:
        session: The session.
        file: One of them, by its name; empty for the newest.
        every: All of them.
        by_restoring: Whether each is restored as well, into a database that is thrown away.

    Raises:
        Invalid: A file is named, and all are asked for.
        DataFailed: One is damaged, or there is none.
    """
    if file and every:
        raise Invalid("Name a backup, or say --all", where="--all")
    choose = data.all_of if every else data.one_of
    check = data.restored_apart if by_restoring else data.read_through
    run = session.run("verify", session.target, file)
    conduct(run, runbook.verification(lambda run: data.verify(run, choose, check)))
    return [dict(item) for item in run.facts["verified"]]


def verified_as_text(found: list[dict[str, Any]]) -> str:
    """Return what was found of backups, a line each."""
    return "\n".join(f"{item['name']}  {item['state']}  {item['how']}" for item in found)


def restore(session: Session, file: str, beside: str | None, identity: str, *, yes: bool) -> str:
    """Replace the database by a backup, after a look at both; or make another one beside it.

    Args:
        session: The session.
        file: The backup.
        beside: What the other one is called, None for none: then the live one is replaced.
        identity: The file here with the private key of an encrypted one.
        yes: Whether that needs no question.

    Raises:
        Invalid: Nobody said yes, or an encrypted one cannot be decrypted here.
    """
    if beside is not None:  # an empty name is a mistake, and no wish to replace
        return restore_beside(session, file, beside, identity)
    steps = with_key(file, identity, runbook.restoration())
    run = session.run("restore", session.target, file)
    database = data.database(session.target, session.settings)
    seen = restoring.preview(database, file, session.log.say)
    session.log.say(seen.as_text(datetime.now(UTC)))
    if not yes and not _agreed():
        raise Invalid(
            "Not restored: nobody said yes",
            where=session.target.name,
            next_step=command("inv", "restore", file, *_key(identity), "--yes").shown(),
        )
    return text.report(conduct(run, steps))


def restore_beside(session: Session, file: str, name: str, identity: str) -> str:
    """Make a new database from a backup, beside the live one."""
    run = session.run("restore", session.target, file)
    steps = runbook.restoration_beside(lambda run: data.bring_beside(run, name))
    return text.report(conduct(run, with_key(file, identity, steps)))


def with_key(file: str, identity: str, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Given the steps of a restore, return those that it takes with this file.

    Raises:
        Invalid: It is encrypted, and cannot be decrypted here.
    """
    if not file.endswith(backup.ENCRYPTED):
        return steps
    path = Path(identity).expanduser()
    if not identity or not path.is_file():
        raise Invalid(
            "The backup is encrypted, and its private key is not on the host",
            where="--identity",
            why=f"there is no file {identity}" if identity else "no private key was named",
            next_step=f"inv restore {file} --identity ~/.config/age/key.txt, where the key is",
        )
    if not shutil.which("age"):
        raise Invalid(
            "An encrypted backup is decrypted on this machine, which has no age",
            where="age",
            next_step="apt-get install age, or brew install age; then again",
        )
    return runbook.decrypted(steps, path)


def _key(identity: str) -> tuple[str, ...]:
    return ("--identity", identity) if identity else ()


def _agreed() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():  # None: it was closed before we started
        return False
    terminal.err("Replace the database? Type yes: ", end="")
    return sys.stdin.readline().strip() == "yes"
