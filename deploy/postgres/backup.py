"""Backups: taken, proved whole, published by rename, listed, pruned."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from deploy import host as hosts
from deploy.command import command, script
from deploy.host import Host
from deploy.host.process import CommandFailed
from deploy.layout import stamp
from deploy.outcome import DataFailed
from deploy.postgres import dump
from deploy.postgres.access import Database
from deploy.postgres.dump import Contents, Say

ENCRYPTED = ".age"  # what the name of an encrypted one ends with
LEAST = 32 * 1024  # kB that must be free for any backup

RESERVE = """
umask 077
mkdir -p -- "$1"
chmod 0700 -- "$1"
[ ! -e "$1/$2" ]
set -o noclobber
: >"$1/.$2.part"
"""
FREE = "df -Pk -- \"$1\" | awk 'NR == 2 {print $4}'"
# A link fails where a rename would replace what stands there.
PUBLISH = 'ln -T -- "$1" "$2"; rm -f -- "$1"; sync -- "$(dirname -- "$2")"'
# Each dump with its size, when it was last changed, and its manifest if there is one; a
# manifest alone is one of nothing, which was never changed.
LIST = """
cd -- "$1" 2>/dev/null || exit 0
for file in *.sql *.sql.gz *.sql.gz.age *.sql.zst *.dump *.json; do
  [ -f "$file" ] || continue
  case "$file" in *[!A-Za-z0-9_.-]*) continue ;; esac
  name=${file%.json}
  if [ "$name" != "$file" ]; then
    if [ -e "$name" ]; then continue; fi
    printf '%s 0 never ' "$name"; tr -d '\\r\\n' <"$file"
  else
    printf '%s %s ' "$file" "$(stat -c %s -- "$file")"
    date -u -r "$file" '+%FT%T+00:00 ' | tr -d '\\n'
    if [ -e "$file.json" ]; then tr -d '\\r\\n' <"$file.json"; fi
  fi
  echo
done
"""
CHANGED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
NEVER = "never"
GARBLED = "its manifest makes no sense"
REQUIRED = frozenset({"at", "bytes", "sha256", "rows"})
STAMPED = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"  # as `stamp` writes a time
YEARS = range(1970, 9999)  # in any zone, and with the days that backups are kept before
LONG = 2**63  # beyond any number that a server or a file system gives
State = Literal["good", "damaged", "unverified"]


@dataclass(frozen=True)
class Origin:
    """What was live when a backup was taken.

    Args:
        release: The release.
        sha: Its commit.
        heads: The migrations that the database was at.
    """

    release: str = ""
    sha: str = ""
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backup:
    """A backup on its host, as its manifest describes it.

    Args:
        name: The file's name.
        path: Where it is on the host.
        at: ISO time, UTC.
        bytes: Its size.
        sha256: Of the file.
        rows: Rows of all tables.
        tables: Rows of each table.
        state: `good`; `damaged` when the file is not what its manifest describes; `unverified`
            when it has none that makes sense.
        release: The release that was live.
        sha: Its commit.
        heads: The migrations that the database was at.
        pg_dump: The version that took it.
        server: The version of the server.
        extensions: What the database needs.
        sequences: The last value of each.
        plain: Bytes of text it unpacks to.
        verified: ISO time, UTC, when it was last read as a whole and found good.
        why: What is wrong with it.
        copied: Where a copy of it is, as `database.copy_to` names it; empty for nowhere.
        encrypted: Whether the host cannot read it. All that is said of what it holds was seen
            before it was encrypted.
        recipient: Whom it is encrypted for.
    """

    name: str
    path: str
    at: str
    bytes: int
    sha256: str
    rows: int
    tables: Mapping[str, int] = field(default_factory=dict)
    state: State = "good"
    release: str = ""
    sha: str = ""
    heads: tuple[str, ...] = ()
    pg_dump: str = ""
    server: str = ""
    extensions: tuple[str, ...] = ()
    sequences: Mapping[str, int] = field(default_factory=dict)
    plain: int = 0
    verified: str = ""
    why: str = ""
    copied: str = ""
    encrypted: bool = False
    recipient: str = ""


Judge = Callable[[Host, Contents, tuple[Backup, ...]], None]


def not_suddenly_empty(host: Host, contents: Contents, before: tuple[Backup, ...]) -> None:
    """Refuse a dump without a table, when the backup before had some.

    Raises:
        DataFailed: It is such a one.
    """
    last = next((item for item in before if item.state == "good"), None)
    if last and last.tables and not contents.tables:
        raise _failed(
            host, last.path, f"the dump has no table, the backup before had {len(last.tables)}"
        )


def whatever(_host: Host, _contents: Contents, _before: tuple[Backup, ...]) -> None:
    """Take any dump: what is about to be replaced is kept as it is."""


def take(
    database: Database, origin: Origin, at: datetime, say: Say, judge: Judge = not_suddenly_empty
) -> Backup:
    """Dump a database, prove the dump whole, publish it, and write its manifest last.

    Args:
        database: What to dump, and where to.
        origin: What is live.
        at: The time the backup is named after, UTC.
        say: Told now and then how far it is.
        judge: Refuses what nobody would want for a backup.

    Raises:
        DataFailed: There is no good backup; whatever was there before is untouched.
    """
    host, folder = database.host, database.folder
    before = listing(host, folder)
    try:
        name, part = _reserve(database, at)
    except CommandFailed as error:
        raise _failed(host, folder, error.why or error.what) from error
    path = f"{folder}/{name}"
    try:
        _room(host, folder, before)
        expected = next((item.plain for item in before if item.state == "good"), 0)
        contents = dump.take(database, part, expected, say)
        judge(host, contents, before)
        taken = described(Backup(name, path, at.isoformat(), 0, "", 0), contents, datetime.now(UTC))
        taken = replace(taken, release=origin.release, sha=origin.sha, heads=origin.heads)
        taken = replace(taken, recipient=database.encrypt_to, encrypted=bool(database.encrypt_to))
        _publish(host, part, taken)
    except CommandFailed as error:
        raise _failed(host, folder, error.why or error.what) from error
    except DataFailed as error:
        raise _failed(host, error.where, error.why or error.what) from error
    finally:
        host.run(command("rm", "-f", "--", part))
    return taken


def _publish(host: Host, part: str, taken: Backup) -> None:
    host.ask(script(PUBLISH, part, taken.path))
    try:
        write(host, taken)
    except CommandFailed:
        host.run(command("rm", "-f", "--", taken.path))  # no retention would ever let it go
        raise


def described(backup: Backup, contents: Contents, now: datetime) -> Backup:
    """Return a backup as a whole dump was found to be just now."""
    return replace(
        backup,
        state="good",
        why="",
        bytes=contents.bytes,
        sha256=contents.sha256,
        rows=contents.rows,
        tables=contents.tables,
        sequences=contents.sequences,
        extensions=contents.extensions,
        pg_dump=contents.by,
        server=contents.server,
        plain=contents.plain,
        verified=now.isoformat(timespec="seconds"),
    )


def write(host: Host, backup: Backup) -> None:
    """Write a backup's manifest."""
    hosts.replace(host, f"{backup.path}.json", manifest(backup))


def manifest(backup: Backup) -> bytes:
    """Return the text of a backup's manifest."""
    return (json.dumps(asdict(backup), ensure_ascii=False) + "\n").encode()


def _reserve(database: Database, at: datetime) -> tuple[str, str]:
    suffix = f".sql.gz{ENCRYPTED if database.encrypt_to else ''}"
    for second in range(10):
        name = f"{database.prefix}_{stamp(at + timedelta(seconds=second))}{suffix}"
        result = database.host.run(script(RESERVE, database.folder, name))
        if result.ok:
            return name, f"{database.folder}/.{name}.part"
    raise CommandFailed("No name for the backup is free", why=result.tail(3))


def _room(host: Host, folder: str, before: tuple[Backup, ...]) -> None:
    free = host.ask(script(FREE, folder)).strip()
    last = next((item.bytes for item in before if item.state == "good"), 0)
    wanted = max(LEAST, last * 3 // 2 // 1024)
    if not free.isdigit() or int(free) < wanted:
        raise _failed(host, folder, f"{free or 'no'} kB are free, {wanted} kB may be needed")


def _failed(host: Host, where: str, why: str) -> DataFailed:
    return DataFailed(
        "The database could not be backed up",
        where=f"{host.name}:{where}" if where.startswith("/") else where,
        why=why,
        next_step=dump.cure(why) or "correct the cause above; then: inv backup",
    )


def listing(host: Host, folder: str) -> tuple[Backup, ...]:
    """Return the backups of a folder, newest first, by their manifests."""
    lines = host.ask(script(LIST, folder)).split("\n")  # JSON may hold what else ends a line
    found = [parse(line, folder) for line in lines if line]
    return tuple(sorted(found, key=lambda item: (item.at, item.name), reverse=True))


def parse(line: str, folder: str) -> Backup:
    """Given a file's name, its size, when it was changed, and its manifest, return the backup."""
    name, size, at, text = line.split(" ", 3)
    path = f"{folder}/{name}"
    found = described_by(text, name, path)
    if found is None:
        bare = Backup(name, path, at if CHANGED.fullmatch(at) else "", int(size), "", 0)
        why = GARBLED if text else "no manifest"
        state: State = "damaged" if at == NEVER else "unverified"
        return replace(bare, state=state, why=why, encrypted=name.endswith(ENCRYPTED))
    if found.state == "good" and str(found.bytes) != size:
        why = f"it has {size} bytes, its manifest says {found.bytes}"
        return replace(found, state="damaged", why=why)
    return found if found.state == "good" else replace(found, state="damaged")


def described_by(text: str, name: str, path: str) -> Backup | None:
    """Given the text of a file's manifest, return the backup, or None when it makes no sense."""
    blank = Backup(name, path, "", 0, "", 0)
    try:
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False).encode()  # half a character could not be written again
        known = {key: data[key] for key in asdict(blank) if key in data}
        at = datetime.fromisoformat(known["at"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if at.tzinfo is None or at.year not in YEARS or REQUIRED - known.keys():
        return None
    if not all(_alike(value, getattr(blank, key)) for key, value in known.items()):
        return None
    lists = {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    return Backup(**{**known, **lists, "name": name, "path": path})


def _alike(value: object, example: object) -> bool:
    """Tell whether a value of a document is of an example's kind."""
    if isinstance(example, tuple):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(example, Mapping):
        return isinstance(value, dict) and all(_alike(item, 0) for item in value.values())
    if type(value) is not type(example):  # to Python, true is a number
        return False
    return not isinstance(value, int) or -LONG <= value < LONG


def is_garbled(item: Backup, prefix: str) -> bool:
    """Tell whether a backup is one of ours whose manifest makes no sense, to be written anew."""
    ours = rf"{re.escape(prefix)}_{STAMPED}\.sql\.gz"
    return item.why == GARBLED and bool(re.fullmatch(ours, item.name))


def prune(host: Host, doomed: Iterable[Backup]) -> None:
    """Remove backups, the manifest first: a file without one counts for nothing."""
    for item in doomed:
        host.ask(command("rm", "-f", "--", f"{item.path}.json", item.path))
