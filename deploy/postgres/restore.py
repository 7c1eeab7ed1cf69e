"""A restore beside the live database, swapped in by rename, with a way back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from deploy.command import Command, command, script
from deploy.host.process import CommandFailed
from deploy.outcome import DataFailed, Invalid
from deploy.postgres import backup, dump, statements
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup
from deploy.postgres.dump import Contents

FILE = re.compile(r"^/?[A-Za-z0-9_][A-Za-z0-9_./-]*\.sql(\.gz)?$")
NEWEST = 3  # backups that are named to who named none
RETRY = 30  # seconds that the swap is tried


@dataclass(frozen=True)
class Preview:
    """What a restore would replace by what."""

    path: str
    at: str
    rows_now: int
    rows_then: int

    def as_text(self) -> str:
        """Say it in two lines."""
        return (
            f"now:    {self.rows_now} rows in the live database\n"
            f"then:   {self.rows_then} rows from {self.path}, taken {self.at or 'at unknown time'}"
        )


@dataclass(frozen=True)
class Pair:
    """The names that a restored database has before, and the live one after the swap."""

    new: str
    old: str


@dataclass(frozen=True)
class Restored:
    """A restore that was swapped in; the database before is kept under another name."""

    pair: Pair
    safety: Backup
    rows_before: int
    rows_after: int


def path_of(folder: str, file: str) -> str:
    """Return the path of the file that a person means by its name or path.

    Raises:
        Invalid: It is no name of a dump.
    """
    if not FILE.match(file) or ".." in file:
        raise Invalid(
            f"{file[:80]!r} is no dump's name",
            where="restore",
            next_step="name a .sql or .sql.gz in the backup folder, or its whole path",
        )
    return file if file.startswith("/") else f"{folder}/{file}"


def preview(database: Database, file: str) -> Preview:
    """Return what a restore would replace by what, changing nothing.

    Raises:
        DataFailed: The file is damaged, or the live database cannot be asked.
    """
    path = path_of(database.folder, file)
    contents, known = _verified(database, path)
    now = sum(counts(database, "live").values())
    return Preview(path, known.at if known else "", now, contents.rows)


def restore(
    database: Database, file: str, release: str, at: datetime, say: Callable[[str], None]
) -> Restored:
    """Load a dump into a new database, compare, and swap it in; the one before is kept.

    Args:
        database: What is replaced.
        file: A dump, by its name in the backup folder or its path on the host.
        release: The release that is live.
        at: The time of the restore, UTC.
        say: Told of each step.

    Raises:
        Invalid: The file's name is wrong.
        DataFailed: Anything failed; the live database is as it was.
    """
    path = path_of(database.folder, file)
    contents, _ = _verified(database, path)
    say(f"  {path} is whole: {contents.rows} rows in {len(contents.tables)} tables")
    before = sum(counts(database, "live").values())
    safety = backup.take(database, release, at)
    say(f"  safety backup: {safety.name}")
    mark = at.strftime("%Y%m%d%H%M%S")
    pair = Pair(f"restore_{mark}", f"before_{mark}")
    try:
        _load(database, pair, path, contents)
        say("  loaded and compared; swapping")
        _swap(database, pair)
    except BaseException as error:
        database.host.run(sql(database, "maintenance", statements.DROP_NEW, pair))
        if isinstance(error, CommandFailed):
            raise _failed(database, error.why or error.what) from error
        raise
    return Restored(pair, safety, before, contents.rows)


def _load(database: Database, pair: Pair, path: str, contents: Contents) -> None:
    host = database.host
    host.ask(sql(database, "maintenance", statements.CREATE, pair))
    host.ask(
        script(statements.LOAD, database.container, path, pair.new, deadline=database.deadline)
    )
    compare(contents, counts(database, pair.new))
    host.ask(sql(database, pair.new, "analyze;", pair))


def undo(database: Database, done: Restored) -> None:
    """Put the database that was live before back in its place, and drop the restored one."""
    database.host.ask(sql(database, "maintenance", statements.SWAP_BACK, done.pair))


def finish(database: Database, done: Restored) -> None:
    """Drop the database that was live before."""
    database.host.ask(sql(database, "maintenance", statements.DROP_OLD, done.pair))


def clean_up(database: Database) -> str:
    """Undo or end what a restore that was killed has left behind.

    Renaming is one transaction: the live name stands for the database before or the restored
    one, whole either way. It may be closed to new connections, and the other is left over.

    Returns:
        The names that were found, empty when nothing was left.
    """
    found = database.host.ask(sql(database, "maintenance", statements.LEFT, Pair("", "")))
    if found.strip():
        database.host.ask(sql(database, "maintenance", statements.REOPEN, Pair("", "")))
    return " ".join(found.split())


def sql(database: Database, where: str, text: str, pair: Pair) -> Command:
    """Return the command that sends constant SQL to `live`, `maintenance` or a database."""
    arguments = (database.container, where, pair.new, pair.old)
    return script(statements.SQL, *arguments, stdin=text.encode(), deadline=database.deadline)


def counts(database: Database, where: str) -> dict[str, int]:
    """Return the rows of every table of a database.

    Raises:
        DataFailed: It cannot be asked.
    """
    result = database.host.run(sql(database, where, statements.COUNT, Pair("", "")))
    try:
        found = json.loads(result.out)
        return {str(name): int(count) for name, count in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise _failed(database, result.tail(3)) from error


def compare(contents: Contents, found: dict[str, int]) -> None:
    """Hold a restored database to its dump.

    Raises:
        DataFailed: A table is missing or has another number of rows.
    """
    wrong = [
        f"{name}: {found.get(name, 'missing')}, not {rows}"
        for name, rows in contents.tables.items()
        if found.get(name) != rows
    ]
    if wrong:
        raise DataFailed(
            "The restored database differs from its dump",
            why="; ".join(wrong[:10]),
            next_step="inv backup; choose another file",
        )


def _verified(database: Database, path: str) -> tuple[Contents, Backup | None]:
    host = database.host
    saved = backup.listing(host, database.folder)
    if not host.run(command("test", "-f", path)).ok:
        raise _missing(database, path, saved)
    contents = dump.inspect(host, path, database.deadline)
    known = next((item for item in saved if item.path == path), None)
    if known and (known.state != "good" or known.sha256 != contents.sha256):
        raise dump.damaged(f"{host.name}:{path}", "it is not what its manifest describes")
    return contents, known


def _missing(database: Database, path: str, saved: Sequence[Backup]) -> DataFailed:
    good = [item.name for item in saved if item.state == "good"]
    return DataFailed(
        "There is no such dump",
        where=f"{database.host.name}:{path}",
        why=f"the newest are {', '.join(good[:NEWEST])}" if good else "there is no backup at all",
        next_step=f"inv restore {good[0]}; or on the host: ls -t {database.folder}"
        if good
        else "inv backup",
    )


def _swap(database: Database, pair: Pair) -> None:
    host = database.host
    swapped = False
    host.ask(sql(database, "maintenance", statements.CLOSE, pair))
    try:
        ends = time.monotonic() + RETRY
        while not swapped and time.monotonic() < ends:
            result = host.run(sql(database, "maintenance", statements.SWAP, pair))
            swapped = result.ok
    finally:
        if not swapped:
            host.run(sql(database, "maintenance", statements.OPEN, pair))
    if not swapped:
        raise _failed(database, result.tail(3))


def _failed(database: Database, why: str) -> DataFailed:
    return DataFailed(
        "The restore failed; the live database is as it was",
        where=database.host.name,
        why=why,
        next_step="correct the cause above, then restore again",
    )
