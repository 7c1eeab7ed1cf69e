"""Dumps on their host: taken, read and loaded there, each in one pass that checks all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from deploy import library
from deploy.host.process import CommandFailed, failed
from deploy.outcome import DataFailed
from deploy.postgres import stream
from deploy.postgres.access import Database

STREAM = "deploy.postgres.stream"
Say = Callable[[str], None]
# What PostgreSQL and its programs say of what a person can put right, and how; the first that
# is said counts: why a server refuses is said behind that it could not be reached.
CURES = {
    stream.MISMATCH: "set database.client_image in invoke.yaml to the version of the server,"
    " such as postgres:17-bookworm",
    "permission denied to create database": "the role of DATABASE_URL needs to make the database"
    " beside: as a superuser there: alter role NAME createdb; then restore again",
    "password authentication failed": "correct DATABASE_URL in the .env of deploy.root",
    r'role "(\S+)" does not exist': r'as a superuser there: create role "\1"; then again',
    "No space left on device|kB are free": "make room: df -h; then again",
    "lock timeout|canceling statement": "see who holds the lock: select * from pg_locks join"
    " pg_stat_activity using (pid); then again",
    "No such container|container \\S+ is not running|connection to server|terminating connection"
    "|server closed the connection": "see whether the server runs: docker ps --all; docker logs"
    " CONTAINER; then again",
}


class Damaged(DataFailed):
    """A dump is not whole, or not what its manifest describes."""


@dataclass(frozen=True)
class Contents:
    """What a whole dump holds.

    Args:
        sha256: Of the file.
        bytes: Its size.
        plain: Bytes of text it unpacks to.
        tables: Rows of each table.
        sequences: The last value of each sequence.
        extensions: Those that it needs.
        server: The version of the server it was taken from.
        by: The version of pg_dump that took it.
    """

    sha256: str
    bytes: int
    plain: int = 0
    tables: Mapping[str, int] = field(default_factory=dict)
    sequences: Mapping[str, int] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()
    server: str = ""
    by: str = ""

    @property
    def rows(self) -> int:
        """Return the rows of all tables."""
        return sum(self.tables.values())


def take(database: Database, part: str, expected: int, say: Say) -> Contents:
    """Dump a database into a file of its host, encrypted if so set, and see that it is whole.

    Args:
        database: What to dump.
        part: The file.
        expected: Bytes of text that it may have, 0 when nobody knows.
        say: Told now and then how far it is.

    Raises:
        DataFailed: There is no whole dump.
    """
    words = ("take", database.container, part, database.encrypt_to, database.name)
    found, why = _pass(database, words, expected, say)
    if found is None:
        raise DataFailed("The database could not be dumped", where=database.host.name, why=why)
    return found


def inspect(database: Database, path: str, expected: int, say: Say) -> Contents:
    """Read a dump from its first byte to its last.

    Args:
        database: Whose host the file is on.
        path: A dump: plain, packed by gzip or zstd, or in pg_dump's own format.
        expected: Bytes of text that it may have, 0 when nobody knows.
        say: Told now and then how far it is.

    Raises:
        Damaged: It is not whole; `why` says what is wrong with it.
    """
    found, why = _pass(database, ("read", path, database.container), expected, say)
    if found is None:
        raise damaged(f"{database.host.name}:{path}", why)
    return found


def load(
    database: Database, path: str, into: str, described: Contents | None, say: Say
) -> Contents:
    """Load a dump into a database that nobody uses yet, and see meanwhile that it is whole.

    Args:
        database: Whose container it is loaded in.
        path: The dump, as `inspect` takes it.
        into: The name of the database.
        described: What its manifest says, None for a dump of somebody else.
        say: Told now and then how far it is.

    Raises:
        DataFailed: It is not whole, or PostgreSQL refused it.
    """
    sha256, expected = (described.sha256, described.plain) if described else ("", 0)
    found, why = _pass(database, ("load", path, database.container, into, sha256), expected, say)
    if found is None:
        raise DataFailed(
            "The dump could not be loaded", where=f"{database.host.name}:{path}", why=why
        )
    return found


def _pass(
    database: Database, words: tuple[str, ...], expected: int, say: Say
) -> tuple[Contents | None, str]:
    """Have the host do it; return what the dump holds, or None and what is wrong."""
    host = database.host
    package = library.provide(host, database.library)
    what = library.module(host, package, STREAM, *words, str(expected), deadline=database.deadline)

    def heard(line: str) -> None:
        if not line.startswith("{"):
            say(f"  {line}")

    try:
        result = host.run(what, heard)
    except CommandFailed as error:
        return None, error.as_text()
    told = parse(result.out)
    if "wrong" in told:
        return None, str(told["wrong"])
    if not result.ok:
        return None, failed(host.name, what, result).as_text()
    return contents(told), ""


def parse(text: str) -> dict[str, Any]:
    """Given what a pass over a dump printed, return its last line as the document that it is.

    Returns:
        The document, which says so when there is none.
    """
    lines = text.strip().splitlines()
    last = lines[-1] if lines else ""
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"wrong": f"the pass over it ended with {last!r}"}


def contents(told: Mapping[str, Any]) -> Contents:
    """Given what was told of a dump, return it.

    Raises:
        DataFailed: It makes no sense.
    """
    known = {item.name for item in fields(Contents)}
    try:
        extensions = tuple(told.get("extensions", ()))
        given = {key: value for key, value in told.items() if key in known}
        return Contents(**{**given, "extensions": extensions})
    except TypeError as error:
        raise DataFailed("What was said of a dump makes no sense", why=str(error)) from error


def cure(why: str) -> str:
    """Given what went wrong, return what to do about it, empty when that is not known."""
    said = ((re.search(sign, why), step) for sign, step in CURES.items())
    return next((found.expand(step) for found, step in said if found), "")


def damaged(where: str, why: str) -> Damaged:
    """Return the failure for a dump that nobody should trust."""
    return Damaged("The dump is damaged", where=where, why=why, next_step="inv backup")
