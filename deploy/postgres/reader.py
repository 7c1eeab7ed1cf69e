"""A dump's text as it passes by: what it holds, and whether it is whole."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

PIECE = 1 << 20  # bytes that are read at a time
LONGEST_LINE = 1 << 20  # bytes of a line outside a table's rows that are looked at
TERMINATOR = b"\n\\.\n"
COPY = re.compile(rb"COPY (.+) FROM stdin;", re.DOTALL)
NAME = re.compile(rb'(?:"(?:[^"]|"")*"|[^\s".(]+)(?:\.(?:"(?:[^"]|"")*"|[^\s".(]+))*')
SETVAL = re.compile(rb"SELECT pg_catalog\.setval\('((?:[^']|'')+)', (-?\d+), true\);")
VERSIONS = {b"-- Dumped from database version ": "server", b"-- Dumped by pg_dump version ": "by"}
EXTENSION = re.compile(rb'CREATE EXTENSION IF NOT EXISTS "?([^\s";]+)')
ANNOUNCED = re.compile(rb"-- (?:Data for )?Name: .*; Type: (TABLE DATA|SEQUENCE SET|EXTENSION); ")
CONNECT = re.compile(rb"\s*\\c(?:onnect)?(?:\s|$)")
LOCK = re.compile(rb"\\restrict ([A-Za-z0-9]+)")
LOCK_LINE = 5  # where pg_dump writes it: nothing but comments stands before
# Bytes in hexadecimal, as of a large object, are no command.
BACKSLASH = re.compile(rb"\\(?!x[0-9a-f]|x?\Z)")
# What a backslash may stand before in a row that pg_dump writes, once pairs of them are gone.
COMMAND = re.compile(rb"\\(?![bfnrtvN]|\.?(?:\n|\Z))")


NO_LOCK = (
    "it holds what may be a command of psql, nobody says who made it, and the psql here is too old"
    " to be locked: update the database's image to 15.14, 16.10, 17.6 or newer"
)


class Wrong(Exception):  # noqa: N818 - it says what is wrong with a dump, or with its way
    """What is wrong, as a person needs it."""


class Reader:
    r"""Reads a plain dump piece by piece.

    pg_dump announces what follows; a function's body that only looks like it is not counted.
    Since 17.6/16.10/15.14 `\unrestrict KEY` follows the trailer, and KEY is the header's.
    """

    def __init__(self) -> None:
        self.tables: dict[str, int] = {}
        self.sequences: dict[str, int] = {}
        self.extensions: list[str] = []
        self.versions: dict[str, str] = {}
        self.bytes = 0
        self._rest = b""
        self._skipping = False  # the rest of a line too long to mean anything to us
        self._table = ""  # whose rows pass by
        self._rows = 0
        self._number = 0
        self._announced = b""  # what stands three lines further on
        self._at = -9
        self._head = b""  # a COPY that is not whole yet: names may hold an end of line
        self._header = self._complete = self._unlocked = False
        self._key = b""

    def feed(self, piece: bytes) -> None:
        """Read on.

        Raises:
            Wrong: No dump of pg_dump holds this.
        """
        self.bytes += len(piece)
        data = self._rest + piece
        at = 0
        while at < len(data):
            found = self._pass_rows(data, at) if self._table else self._pass_line(data, at)
            if found is None:
                return
            at = found
        self._rest = b""

    def _pass_rows(self, data: bytes, at: int) -> int | None:
        """Count rows from the end of the line before them; return where they end."""
        end = data.find(TERMINATOR, at)
        if end < 0:
            kept = max(at, len(data) - len(TERMINATOR) + 1)
            self._rows += data.count(b"\n", at, kept)
            self._rest = data[kept:]
            return None
        self._rows += data.count(b"\n", at, end + 1)
        self.tables[self._table] = self._rows
        self._table = ""
        return end + len(TERMINATOR)

    def _pass_line(self, data: bytes, at: int) -> int | None:
        end = data.find(b"\n", at)
        if end < 0:
            self._rest = data[at:]
            if len(self._rest) > LONGEST_LINE:
                self._rest, self._skipping, self._complete = b"", True, False
            return None
        if self._skipping:
            self._skipping, self._number = False, self._number + 1
            return end + 1
        self._line(data[at:end])
        # The end of its line stands before a table's first row as it does before each.
        return end if self._table else end + 1

    def _line(self, line: bytes) -> None:
        self._number += 1
        if self._number <= 20:
            self._begin(line)
        if found := ANNOUNCED.match(line):
            self._announced, self._at = found[1], self._number + 3
        elif self._head or self._number == self._at:
            self._follow(line)
        # Where it locks itself, psql refuses what is a command, and only that.
        if not self._key and CONNECT.match(line):
            raise Wrong("it connects to another database by itself")
        self._end(line)

    def _follow(self, line: bytes) -> None:
        """Note what was announced."""
        if self._announced == b"TABLE DATA":
            self._head += b"\n" + line if self._head else line
            if self._head.count(b'"') % 2:
                return  # a name holds an end of line
            if match := COPY.fullmatch(self._head):
                table = NAME.match(match[1])
                self._table = (table[0] if table else match[1]).decode(errors="replace")
                self._rows = -1
            self._head = b""
        elif found := SETVAL.fullmatch(line):
            sequence = found[1].replace(b"''", b"'").decode(errors="replace")
            self.sequences[sequence] = int(found[2])
        elif found := EXTENSION.match(line):
            self.extensions.append(found[1].decode(errors="replace"))

    def _begin(self, line: bytes) -> None:
        if line == b"-- PostgreSQL database dump" and self._number <= 4:
            self._header = True
        elif self._number == LOCK_LINE and (lock := LOCK.fullmatch(line)):
            self._key = lock[1]
        elif line.endswith(b"\r"):
            raise Wrong("its lines end with CR LF: something on its way took it for a text")
        elif line == b"-- PostgreSQL database cluster dump":
            raise Wrong("it is one of pg_dumpall, of a whole server")
        for start, name in VERSIONS.items():
            if line.startswith(start):
                self.versions[name] = line[len(start) :].decode(errors="replace")
        if self._number == 4 and not self._header:
            raise Wrong("it does not begin like a dump of pg_dump")

    def _end(self, line: bytes) -> None:
        if line == b"-- PostgreSQL database dump complete":
            self._complete = True
        elif self._complete and line.startswith(b"\\unrestrict "):
            self._unlocked = line.removeprefix(b"\\unrestrict ") == self._key
            self._complete = self._unlocked
        elif self._complete and line not in (b"--", b""):
            self._complete = False

    def finish(self) -> dict[str, Any]:
        """Return what the dump holds, now that it has ended.

        Raises:
            Wrong: That was not its end.
        """
        if not self._header:
            raise Wrong("it does not begin like a dump of pg_dump")
        if self._table or self._rest or not self._complete or (self._key and not self._unlocked):
            raise Wrong("its end is missing, or was changed")
        return {
            "plain": self.bytes,
            "tables": self.tables,
            "sequences": self.sequences,
            "extensions": self.extensions,
            **self.versions,
        }


class Wary(Reader):
    """Reads a dump of somebody else for a psql that cannot be locked.

    What passes for rows here may be something else to psql, where a string was open before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open = b""  # half of a pair of backslashes

    def _pass_line(self, data: bytes, at: int) -> int | None:
        end = data.find(b"\n", at)
        found = super()._pass_line(data, at)
        if self._skipping or BACKSLASH.search(data[at : end if end >= 0 else len(data)]):
            raise Wrong(NO_LOCK)
        return found

    def _pass_rows(self, data: bytes, at: int) -> int | None:
        found = super()._pass_rows(data, at)
        passed = len(data) - len(self._rest) if found is None else found
        rows = self._open + data[at:passed]
        if COMMAND.search((rows + data[passed:found]).replace(b"\\\\", b"")):
            raise Wrong(NO_LOCK)
        self._open = b"\\" * ((len(rows) - len(rows.rstrip(b"\\"))) % 2)
        return found


class Gunzip:
    """Unpacks gzip piece by piece, member after member."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)

    def unpack(self, piece: bytes) -> Iterator[bytes]:
        """Return what a piece holds, in pieces.

        Raises:
            Wrong: Its check sum or its form is broken.
        """
        while piece:
            if self._member.eof:
                self._member = zlib.decompressobj(31)
            try:
                yield self._member.decompress(piece, 4 * PIECE)
                piece = self._member.unconsumed_tail or self._member.unused_data
            except zlib.error as error:
                why = str(error).rpartition(": ")[2]
                raise Wrong(f"invalid compressed data: {why}") from error

    def finish(self) -> None:
        """See that it has ended.

        Raises:
            Wrong: It has not.
        """
        if not self._member.eof:
            raise Wrong("unexpected end of the compressed file")
