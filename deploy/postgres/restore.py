"""A restore beside the live database, swapped in by rename, with a way back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from deploy.command import Command, command, script
from deploy.host.process import CommandFailed
from deploy.outcome import DataFailed, Invalid
from deploy.postgres import backup, dump, sealed, statements
from deploy.postgres.access import Database
from deploy.postgres.backup import ENCRYPTED, Backup, Origin
from deploy.postgres.dump import Contents, Say

FILE = re.compile(r"^/?[A-Za-z0-9_][A-Za-z0-9_./-]*\.(sql|sql\.gz|sql\.gz\.age|sql\.zst|dump)$")
# Not what a restore calls its own: those go when it is cleaned up.
NAME = re.compile(r"^(?!(restore|before)_[0-9]{14})[a-z_][a-z0-9_]{0,62}$")
NOT_DESCRIBED = "it is not what its manifest describes"
NEWEST = 3  # backups that are named to who named none
RETRY = 30  # seconds that the swap is tried
DAYS = 48  # hours from which on an age is told in days
SPARE = 64 * 1024  # kB that a restore leaves free where the database lies


@dataclass(frozen=True)
class Preview:
    """What a restore would replace by what."""

    path: str
    at: str
    rows_now: int
    rows_then: int
    heads: tuple[str, ...] = ()

    def as_text(self, now: datetime) -> str:
        """Say it in two lines."""
        migrated = f", migrated to {', '.join(self.heads)}" if self.heads else ""
        taken = f"taken {self.at}, {age(self.at, now)} ago" if self.at else "taken at unknown time"
        return (
            f"now:    {self.rows_now} rows in the live database\n"
            f"then:   {self.rows_then} rows from {self.path}, {taken}{migrated}"
        )


def age(at: str, now: datetime) -> str:
    """Return how long ago an ISO time was."""
    hours = (now - datetime.fromisoformat(at)).total_seconds() / 3600
    return f"{hours:.1f} hours" if hours < DAYS else f"{hours / 24:.0f} days"


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
    if not FILE.fullmatch(file) or ".." in file:
        raise Invalid(
            f"{file[:80]!r} is no dump's name",
            where="restore",
            next_step="name a .sql, .sql.gz, .sql.gz.age, .sql.zst or .dump in the backup folder,"
            " or its whole path",
        )
    return file if file.startswith("/") else f"{folder}/{file}"


def preview(database: Database, file: str, say: Say) -> Preview:
    """Return what a restore would replace by what, changing nothing.

    Raises:
        DataFailed: The file is damaged, or the live database cannot be asked.
    """
    path = path_of(database.folder, file)
    if path.endswith(ENCRYPTED):
        told = described(database, path)
        now = _replaceable(database, path, told.tables)
        return Preview(path, told.at, now, told.rows, tuple(told.heads))
    known = known_of(database, path)
    contents = dump.inspect(database, path, known.plain if known else 0, say)
    _as_described(database, known, contents)
    now = _replaceable(database, path, contents.tables)
    at, heads = (known.at, tuple(known.heads)) if known else ("", ())
    return Preview(path, at, now, contents.rows, heads)


def _replaceable(database: Database, path: str, tables: Mapping[str, int]) -> int:
    """Return the rows of the live database.

    Raises:
        DataFailed: A dump without a table would replace it, and it has some.
    """
    now = counts(database, "live")
    if now and not tables:
        raise DataFailed(
            "The dump has no table at all, and the live database has some",
            where=f"{database.host.name}:{path}",
            why=f"{len(now)} tables with {sum(now.values())} rows would be gone",
            next_step="name another of inv backup.list, or look first: inv restore FILE --as NAME",
        )
    return sum(now.values())


def restore(database: Database, file: str, origin: Origin, at: datetime, say: Say) -> Restored:
    """Load a dump into a new database, compare, and swap it in; the one before is kept.

    Args:
        database: What is replaced.
        file: A dump, by its name in the backup folder or its path on the host.
        origin: What is live.
        at: The time of the restore, UTC.
        say: Told of each step.

    Raises:
        Invalid: The file's name is wrong.
        DataFailed: Anything failed; the live database is as it was.
    """
    path, pair = path_of(database.folder, file), pair_of(database, at)
    with sealed.read_once(database.host, path) as source:
        known = known_of(database, path)
        before = sum(counts(database, "live").values())
        safety = backup.take(database, origin, at, say, backup.whatever)
        say(f"  safety backup: {safety.name}")
        contents = swap_in(database, pair, source, known, say)
    return Restored(pair, safety, before, contents.rows)


def pair_of(database: Database, at: datetime) -> Pair:
    """Return the names that a restore of a time works with."""
    mark = f"{at:%Y%m%d%H%M%S}{database.suffix}"
    return Pair(f"restore_{mark}", f"before_{mark}")


def swap_in(database: Database, pair: Pair, path: str, known: Backup | None, say: Say) -> Contents:
    """Make a database from a dump, and put it in the place of the live one, which is kept.

    Args:
        database: What is replaced.
        pair: The names to work with.
        path: The dump.
        known: What its manifest says, if it has one.
        say: Told of each step.

    Raises:
        DataFailed: Anything failed; the live database is as it was.
    """
    with _dropped(database, pair):
        contents = fill(database, pair.new, path, known, say)
        say(f"  {contents.rows} rows in {len(contents.tables)} tables are loaded; swapping")
        _swap(database, pair)
    return contents


def beside(database: Database, file: str, name: str, at: datetime, say: Say) -> Contents:
    """Load a dump into a new database that stays beside the live one.

    Args:
        database: The live one.
        file: A dump, by its name in the backup folder or its path on the host.
        name: What the new one is called.
        at: The time of the restore, UTC.
        say: Told of each step.

    Raises:
        Invalid: A name is wrong, or taken.
        DataFailed: Anything failed; nothing is left of it.
    """
    path = path_of(database.folder, file)
    pair = replace(pair_of(database, at), old=name)
    taken = database.host.ask(sql(database, "maintenance", statements.EXISTS, pair)).strip()
    if not NAME.fullmatch(name) or taken:
        raise Invalid(
            f"A database cannot be called {name[:80]!r}",
            where="--as",
            why="one of that name is there"
            if taken
            else "small letters, digits and _ make a name, restore_TIME and before_TIME are ours",
            next_step="choose another name",
        )
    with sealed.read_once(database.host, path) as source, _dropped(database, pair):
        contents = fill(database, pair.new, source, known_of(database, path), say)
        database.host.ask(sql(database, "maintenance", statements.RENAME, pair))
    return contents


def verify(database: Database, known: Backup, say: Say) -> Contents:
    """Read a backup from its first byte to its last, and hold it to its manifest.

    Raises:
        Damaged: It is not what its manifest says, or not whole.
    """
    if not database.host.run(command("test", "-f", known.path)).ok:
        raise dump.damaged(f"{database.host.name}:{known.path}", "its file is gone")
    if known.encrypted:
        return _by_check_sum(database, known, say)
    contents = dump.inspect(database, known.path, known.plain, say)
    _as_described(database, known, contents)
    return contents


def _by_check_sum(database: Database, known: Backup, say: Say) -> Contents:
    if not known.sha256:
        raise _undescribed(database, known.path)
    say("  it is encrypted: its check sum alone is looked at")
    what = command("sha256sum", "--", known.path, deadline=database.deadline)
    if database.host.ask(what).split()[0] != known.sha256:
        raise dump.damaged(f"{database.host.name}:{known.path}", NOT_DESCRIBED)
    return dump.contents(asdict(known) | {"by": known.pg_dump})


def prove(database: Database, known: Backup, at: datetime, say: Say) -> Contents:
    """Restore a backup into a database that is thrown away, and hold it to its manifest.

    Raises:
        DataFailed: It cannot be restored, or is not what its manifest says.
    """
    pair = pair_of(database, at)
    with _dropped(database, pair):
        return fill(database, pair.new, known.path, known, say)


def fill(database: Database, name: str, path: str, known: Backup | None, say: Say) -> Contents:
    """Make a database from a dump, and compare the two.

    Args:
        database: In whose container it is made.
        name: Its name.
        path: The dump.
        known: What its manifest says, if it has one.
        say: Told now and then how far it is.

    Raises:
        DataFailed: It could not be made, or is not what it should be; it may be there.
        CommandFailed: The same.
    """
    host, pair, plain = database.host, Pair(name, ""), known.plain if known else 0
    _room(database, plain)
    host.ask(sql(database, "maintenance", statements.CREATE, pair))
    described = dump.contents(asdict(known)) if known else None
    contents = dump.load(database, path, name, described, say)
    _as_described(database, known, contents)
    compare(contents, counts(database, name), sequences(database, name))
    host.ask(sql(database, name, "analyze;", pair))
    alike = host.run(sql(database, "maintenance", statements.LIKE_LIVE, pair))
    if not alike.ok or alike.err.strip():
        say(f"  not all that is set for the live database is set for this one: {alike.tail(3)}")
    return contents


@contextmanager
def _dropped(database: Database, pair: Pair) -> Iterator[None]:
    """Drop what was made under the new name, when it still has it at the end of the block."""
    try:
        yield
    except CommandFailed as error:
        raise _failed(database, error.why or error.what) from error
    finally:
        database.host.run(sql(database, "maintenance", statements.DROP_NEW, pair))


def _room(database: Database, plain: int) -> None:
    """See that there is room for a second database: one that runs full takes the first down."""
    result = database.host.run(script(statements.ROOM, database.container))
    words = result.out.split()
    if not result.ok or len(words) != 2 or not all(word.isdigit() for word in words):
        return  # an image without df: nobody knows
    free, live = int(words[0]), int(words[1])
    wanted = max(plain, live) * 3 // 2 // 1024 + SPARE
    if free < wanted:
        raise _failed(
            database, f"{free} kB are free where the database lies, {wanted} kB may be needed"
        )


def undo(database: Database, done: Restored) -> None:
    """Put the database that was live before back in its place, and drop the restored one."""
    database.host.ask(sql(database, "maintenance", statements.SWAP_BACK, done.pair))


def save_before(database: Database, pair: Pair, origin: Origin, at: datetime, say: Say) -> Backup:
    """Back up the database that was live before: it took rows until the names were swapped.

    Raises:
        DataFailed: It cannot be; the database stays.
    """
    database.host.run(sql(database, "maintenance", statements.OPEN_OLD, pair))
    saved = backup.take(replace(database, name=pair.old), origin, at, say, backup.whatever)
    say(f"  all that was live until the swap: {saved.name}")
    return saved


def finish(database: Database, done: Restored) -> None:
    """Drop the database that was live before."""
    database.host.ask(sql(database, "maintenance", statements.DROP_OLD, done.pair))


def reopen(database: Database) -> str:
    """See that the live name stands for a database that lets everybody in.

    Renaming is one transaction: that is the database before or the restored one, whole either
    way. A restore that was killed may have left it closed, and the other one beside it.

    Returns:
        The names of what was left, empty for nothing.
    """
    own = _own(database)
    found = database.host.ask(sql(database, "maintenance", statements.LEFT, own)).split()
    if found:
        database.host.ask(sql(database, "maintenance", statements.REOPEN, own))
    return " ".join(found)


def clean_up(database: Database, at: datetime, say: Say) -> str:
    """Undo or end what a restore that was killed has left behind, and lose no row of it.

    Args:
        database: The live one.
        at: Now, UTC.
        say: Told what is kept.

    Returns:
        The names of what was left, empty for nothing.

    Raises:
        DataFailed: A database that was live before cannot be backed up, and stays.
    """
    left, own = reopen(database), _own(database)
    if not left:
        return ""
    for name in database.host.ask(sql(database, "maintenance", statements.LEFT, own)).split():
        if name.startswith("before_"):
            save_before(database, Pair("", name), Origin(), at, say)
    database.host.ask(sql(database, "maintenance", statements.DROP_LEFT, own))
    return left


def _own(database: Database) -> Pair:
    """Return the patterns of the names that restores of a database work with."""
    return Pair(f"restore_[0-9]{{14}}{database.suffix}", f"before_[0-9]{{14}}{database.suffix}")


def sql(database: Database, where: str, text: str, pair: Pair) -> Command:
    """Return the command that sends constant SQL to `live`, `maintenance` or a database."""
    arguments = (database.container, where, pair.new, pair.old)
    return script(statements.SQL, *arguments, stdin=text.encode(), deadline=database.deadline)


def counts(database: Database, where: str) -> dict[str, int]:
    """Return the rows of every table of a database.

    Raises:
        DataFailed: It cannot be asked.
    """
    found = _document(database, where, statements.COUNT)
    return {str(name): int(count) for name, count in found.items()}


def _document(database: Database, where: str, text: str) -> dict[str, Any]:
    result = database.host.run(sql(database, where, text, Pair("", "")))
    try:
        found = json.loads(result.out)
    except ValueError as error:
        raise _failed(database, result.tail(3)) from error
    if not isinstance(found, dict):
        raise _failed(database, result.tail(3))
    return found


def sequences(database: Database, where: str) -> dict[str, int | None]:
    """Return the last value of every sequence of a database, None of one that gave none yet."""
    found = _document(database, where, statements.SEQUENCES)
    return {str(name): None if value is None else int(value) for name, value in found.items()}


def compare(contents: Contents, rows: Mapping[str, int], last: Mapping[str, int | None]) -> None:
    """Hold a restored database to its dump.

    Raises:
        DataFailed: A table is missing or has another number of rows, or a sequence would give
            again what it gave before.
    """
    wrong = [
        f"{name}: {rows.get(name, 'missing')}, not {count}"
        for name, count in contents.tables.items()
        if rows.get(name) != count
    ]
    wrong += [
        f"{name}: at {last.get(name)}, not {value}"
        for name, value in contents.sequences.items()
        if last.get(name) != value
    ]
    if wrong:
        raise DataFailed(
            "The restored database differs from its dump",
            why="; ".join(wrong[:10]),
            next_step="inv backup; choose another file",
        )


def known_of(database: Database, path: str) -> Backup | None:
    """Return what the manifest of a dump says, None when it has none.

    Raises:
        DataFailed: There is no such dump, or it is known to be damaged.
    """
    saved = backup.listing(database.host, database.folder)
    if not database.host.run(command("test", "-f", path)).ok:
        raise _missing(database, path, saved)
    known = next((item for item in saved if item.path == path), None)
    if known and known.state == "damaged":
        raise dump.damaged(f"{database.host.name}:{path}", known.why)
    return known if known and known.state == "good" else None


def _as_described(database: Database, known: Backup | None, contents: Contents) -> None:
    if known is None or known.sha256 in ("", contents.sha256):
        return
    # The check sum of an encrypted one is that of the file as it lies, which is not what is read.
    held = (known.plain, known.tables) == (contents.plain, contents.tables)
    if not known.encrypted or not held:
        raise dump.damaged(f"{database.host.name}:{known.path}", NOT_DESCRIBED)


def described(database: Database, path: str) -> Backup:
    """Return what the manifest of an encrypted backup says, which tells alone what it holds.

    Raises:
        DataFailed: It has none, or is known to be damaged.
    """
    known = known_of(database, path)
    if known is None:
        raise _undescribed(database, path)
    return known


def _undescribed(database: Database, path: str) -> DataFailed:
    return DataFailed(
        "Nobody knows what an encrypted file holds that has no manifest",
        where=f"{database.host.name}:{path}",
        next_step="decrypt it (age -d -i KEY), put the .sql.gz there, and restore that",
    )


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
            swapped = result.ok or _there(database, pair)  # its answer may have been lost
    finally:
        opened = swapped or _opened(database, pair)
    if not opened:
        raise DataFailed(
            "The restore failed, and the live database may still be closed to everybody",
            where=host.name,
            why=result.tail(3),
            next_step="docker ps; docker logs; once the database runs: inv backup opens it",
        )
    if not swapped:
        raise _failed(database, result.tail(3))


def _there(database: Database, pair: Pair) -> bool:
    return bool(
        database.host.run(sql(database, "maintenance", statements.EXISTS, pair)).out.strip()
    )


def _opened(database: Database, pair: Pair) -> bool:
    """Let everybody in again; a server that is just starting gets some time."""
    ends = time.monotonic() + RETRY
    while time.monotonic() < ends:
        if database.host.run(sql(database, "maintenance", statements.OPEN, pair)).ok:
            return True
        time.sleep(0.5)  # the interval of a poll that has a deadline
    return False


def _failed(database: Database, why: str) -> DataFailed:
    return DataFailed(
        "The restore failed; the live database is as it was",
        where=database.host.name,
        why=why,
        next_step=dump.cure(why) or "correct the cause above, then restore again",
    )
