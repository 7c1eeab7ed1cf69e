"""Backups: taken, proved whole, published by rename, listed, pruned, brought home."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from deploy import host as hosts
from deploy.command import command, script
from deploy.host import Host, local_host, transfer
from deploy.host.process import CommandFailed
from deploy.layout import stamp
from deploy.outcome import DataFailed
from deploy.postgres import dump
from deploy.postgres.access import Database
from deploy.postgres.dump import Contents

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
# Compressed inside the container: a stream that is cut on its way then breaks the CRC.
DUMP = """
docker exec "$1" sh -c 'exec pg_dump --compress=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"' >|"$2"
sync -- "$2"
"""
VERSIONS = """
docker exec "$1" sh -c 'pg_dump --version; exec psql -X -w -qtA -U "$POSTGRES_USER" \
  -d "$POSTGRES_DB" -c "show server_version"'
"""
# A link fails where a rename would replace what stands there.
PUBLISH = 'ln -T -- "$1" "$2"; rm -f -- "$1"; sync -- "$(dirname -- "$2")"'
LIST = """
for file in "$1"/*.sql.gz.json; do
  [ -e "$file" ] || continue
  data=${file%.json}
  printf '%s %s ' "${data##*/}" "$(stat -c %s -- "$data" 2>/dev/null || echo 0)"
  tr -d '\\n' <"$file"
  echo
done
"""


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
        state: `good`, or `damaged` when file and manifest do not fit together.
        release: The release that was live.
    """

    name: str
    path: str
    at: str
    bytes: int
    sha256: str
    rows: int
    tables: Mapping[str, int] = field(default_factory=dict)
    state: str = "good"
    release: str = ""
    pg_dump: str = ""
    server: str = ""


def take(database: Database, release: str, at: datetime) -> Backup:
    """Dump a database, prove the dump whole, publish it, and write its manifest last.

    Args:
        database: What to dump, and where to.
        release: The release that is live.
        at: The time the backup is named after, UTC.

    Raises:
        DataFailed: There is no good backup; whatever was there before is untouched.
    """
    host, folder, container = database.host, database.folder, database.container
    before = listing(host, folder)
    try:
        name, part = _reserve(host, folder, database.prefix, at)
    except CommandFailed as error:
        raise _failed(host, folder, error.why or error.what) from error
    try:
        _room(host, folder, before)
        host.ask(script(DUMP, container, part, deadline=database.deadline))
        contents = dump.inspect(host, part, database.deadline)
        _not_suddenly_empty(host, contents, before)
        versions = host.ask(script(VERSIONS, container)).splitlines()
        path = f"{folder}/{name}"
        host.ask(script(PUBLISH, part, path))
    except CommandFailed as error:
        raise _failed(host, folder, error.why or error.what) from error
    finally:
        host.run(command("rm", "-f", "--", part))
    taken = Backup(
        name=name,
        path=path,
        at=at.isoformat(),
        bytes=contents.bytes,
        sha256=contents.sha256,
        rows=contents.rows,
        tables=contents.tables,
        release=release,
        pg_dump=versions[0] if versions else "",
        server=versions[-1] if versions else "",
    )
    text = json.dumps(asdict(taken), ensure_ascii=False) + "\n"
    hosts.replace(host, f"{path}.json", text.encode())
    return taken


def _reserve(host: Host, folder: str, prefix: str, at: datetime) -> tuple[str, str]:
    for second in range(10):
        name = f"{prefix}_{stamp(at + timedelta(seconds=second))}.sql.gz"
        result = host.run(script(RESERVE, folder, name))
        if result.ok:
            return name, f"{folder}/.{name}.part"
    raise CommandFailed("No name for the backup is free", why=result.tail(3))


def _room(host: Host, folder: str, before: tuple[Backup, ...]) -> None:
    free = host.ask(script(FREE, folder)).strip()
    last = next((item.bytes for item in before if item.state == "good"), 0)
    wanted = max(LEAST, last * 3 // 2 // 1024)
    if not free.isdigit() or int(free) < wanted:
        raise _failed(host, folder, f"{free or 'no'} kB are free, {wanted} kB may be needed")


def _not_suddenly_empty(host: Host, contents: Contents, before: tuple[Backup, ...]) -> None:
    last = next((item for item in before if item.state == "good"), None)
    if last and last.tables and not contents.tables:
        raise _failed(
            host, last.path, f"the dump has no table, the backup before had {len(last.tables)}"
        )


def _failed(host: Host, folder: str, why: str) -> DataFailed:
    return DataFailed(
        "The database could not be backed up",
        where=f"{host.name}:{folder}",
        why=why,
        next_step="df -h; docker ps; then: inv backup",
    )


def listing(host: Host, folder: str) -> tuple[Backup, ...]:
    """Return the backups of a folder, newest first, by their manifests."""
    lines = host.ask(script(LIST, folder)).splitlines()
    found = [parse(line, folder) for line in lines]
    return tuple(sorted(found, key=lambda item: (item.at, item.name), reverse=True))


def parse(line: str, folder: str) -> Backup:
    """Given a file's name, its size and its manifest, return the backup."""
    name, _, rest = line.partition(" ")
    size, _, text = rest.partition(" ")
    path = f"{folder}/{name}"
    try:
        data = json.loads(text)
        known = {key: data[key] for key in Backup.__dataclass_fields__ if key in data}
        found = Backup(**{**known, "name": name, "path": path})
        datetime.fromisoformat(found.at)
        if str(found.bytes) == size and found.state == "good":
            return found
        return Backup(**{**asdict(found), "state": "damaged"})
    except (ValueError, KeyError, TypeError):
        return Backup(name, path, "", 0, "", 0, state="damaged")


def prune(host: Host, doomed: Iterable[Backup]) -> None:
    """Remove backups, the manifest first: a file without one counts for nothing."""
    for item in doomed:
        host.ask(command("rm", "-f", "--", f"{item.path}.json", item.path))


def download(host: Host, backup: Backup, folder: Path) -> Path:
    """Copy a backup to this machine, and see that every byte of it arrived.

    Raises:
        DataFailed: It did not; nothing is left that could pass for it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / PurePosixPath(backup.name).name
    part = folder / f".{target.name}.part"
    here = local_host(host.log)
    try:
        into = script('umask 077; cat >"$1"', str(part), stdin=b"", deadline=7200)
        transfer(host, command("cat", "--", backup.path, deadline=7200), here, into)
        if _sha256(part) != backup.sha256:
            raise DataFailed(
                "The copy differs from the backup",
                where=str(target),
                next_step="inv backup --download",
            )
        part.rename(target)
    except (OSError, CommandFailed) as error:
        raise DataFailed(
            "The backup could not be copied here", where=str(target), why=str(error)
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
