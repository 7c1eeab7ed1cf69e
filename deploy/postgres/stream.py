"""A dump as it passes by: taken, read, or loaded, and checked from its first byte to its last.

`python3 -m deploy.postgres.stream VERB ...` runs where the database's container does, with
nothing but the standard library. It tells on its standard error how far it is, and at the end
prints one line of JSON: what the dump holds, or what is wrong.

Between container and host a dump travels compressed: the engine's own copying costs more than
gzip does at its fastest, and of a stream that is cut the check sum is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PIECE = 1 << 20  # bytes that are read at a time
EVERY = 2.0  # seconds between two words about how far it is
LONGEST_LINE = 1 << 20  # bytes of a line outside a table's rows that are looked at
WRONG = 3
TERMINATOR = b"\n\\.\n"
COPY = re.compile(rb"COPY (.+) FROM stdin;", re.DOTALL)
NAME = re.compile(rb'(?:"(?:[^"]|"")*"|[^\s".(]+)(?:\.(?:"(?:[^"]|"")*"|[^\s".(]+))*')
SETVAL = re.compile(rb"SELECT pg_catalog\.setval\('((?:[^']|'')+)', (-?\d+), true\);")
VERSIONS = {b"-- Dumped from database version ": "server", b"-- Dumped by pg_dump version ": "by"}
EXTENSION = re.compile(rb'CREATE EXTENSION IF NOT EXISTS "?([^\s";]+)')
ANNOUNCED = re.compile(rb"-- (?:Data for )?Name: .*; Type: (TABLE DATA|SEQUENCE SET|EXTENSION); ")
CONNECT = re.compile(rb"\s*\\c(?:onnect)?(?:\s|$)")

# What one statement waits for a lock: a table that somebody holds must not hold the backup.
# pg_dump writes 8 kB at a time, and each time costs the engine's copying the same: dd collects.
# sh has no pipefail: how pg_dump ended goes round dd.
DUMP = """
exec 3>&1
exit "$({ {
  pg_dump --compress=1 --lock-wait-timeout=60s -U "$POSTGRES_USER" -d "$POSTGRES_DB"
  echo $? >&4
} | dd ibs=64k obs=64k status=none >&3; } 4>&1)"
"""
LOAD = (
    "gzip -dc | exec psql -X -w -q -v ON_ERROR_STOP=1 -1 -o /dev/null"
    ' -U "$POSTGRES_USER" -d "$1" -f -'
)
MISMATCH = "server version mismatch"  # as pg_dump says it
AS_TEXT = "pg_restore -f - | gzip -1"
GZIP, ZSTD, CUSTOM = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PGDMP"


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
        if CONNECT.match(line):
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
        elif line.startswith(b"\\restrict "):
            self._key = line.removeprefix(b"\\restrict ")
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


class Progress:
    """Says now and then how far it is.

    Args:
        expected: Bytes that will pass, 0 when nobody knows.
        what: What they are.
        say: Told of it.
    """

    def __init__(
        self,
        expected: int,
        what: str = "text",
        say: Callable[[str], Any] = lambda text: sys.stderr.write(f"{text}\n"),
    ) -> None:
        self._expected, self._what, self._say = expected, what, say
        self._began = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """Note how many bytes have passed."""
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            self._say(progress(done, self._expected, now - self._began, self._what))


def progress(done: int, expected: int, seconds: float, what: str = "text") -> str:
    """Say how far it is: the bytes that have passed and are expected (0: unknown), the time."""
    rate = done / max(seconds, 0.001)
    text = f"{done / 1e6:,.0f} MB of {what}, {rate / 1e6:,.0f} MB/s"
    if expected <= done:
        return text
    left = (expected - done) / max(rate, 1.0)
    return f"{text}, {100 * done // expected} %, about {left:,.0f} s left"


def take(container: str, part: str, recipient: str, expected: int) -> dict[str, Any]:
    """Dump a container's database into a file, reading it as it arrives.

    With a recipient the file holds it encrypted; without, as it is.

    Raises:
        Wrong: pg_dump failed, what arrived is no whole dump, or it cannot be encrypted.
    """
    reader, gunzip, digest = Reader(), Gunzip(), hashlib.sha256()
    told, size = Progress(expected), 0
    argv = ("docker", "exec", container, "sh", "-c", DUMP)
    with (
        _running(argv, "pg_dump", stdout=subprocess.PIPE) as program,
        Path(part).open("wb") as file,
        _encrypting(recipient, file) as write,
    ):
        for piece in _pieces(program.process.stdout):
            write(piece)
            digest.update(piece)
            size += len(piece)
            for text in gunzip.unpack(piece):
                reader.feed(text)
            _same_version(reader.versions)
            told.at(reader.bytes)
        program.must_be_good()
        gunzip.finish()
        file.flush()
        os.fsync(file.fileno())
    lies = _as_it_lies(part) if recipient else {"sha256": digest.hexdigest(), "bytes": size}
    return {**lies, **reader.finish()}


@contextmanager
def _encrypting(recipient: str, file: IO[bytes]) -> Iterator[Callable[[bytes], Any]]:
    """Return what writes into a file, encrypted when there is somebody to encrypt for.

    Raises:
        Wrong: At the end of the block: it is not all there.
    """
    if not recipient:
        yield file.write
        return
    argv = ("age", "--encrypt", "--recipient", recipient)
    with _running(argv, "age", stdin=subprocess.PIPE, stdout=file) as age:
        pipe = age.process.stdin
        if pipe is None:
            raise Wrong("age takes nothing")
        try:
            yield pipe.write
            pipe.close()
        except BrokenPipeError as error:
            age.must_be_good()
            raise Wrong("age ended before the dump did") from error
        age.must_be_good()


def _as_it_lies(path: str) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": file.tell()}


def _same_version(versions: Mapping[str, str]) -> None:
    """See that a server of the version that was dumped would take the dump back.

    Raises:
        Wrong: A newer pg_dump writes what an older server does not know.
    """
    server, by = versions.get("server", ""), versions.get("by", "")
    if server and by and server.partition(".")[0] != by.partition(".")[0]:
        raise Wrong(f"{MISMATCH}: the server is {server}, pg_dump {by}: it could not be restored")


def read(path: str, container: str, expected: int) -> dict[str, Any]:
    """Read a dump, whatever its form.

    Raises:
        Wrong: It is not whole.
    """
    return _through(path, container, expected, lambda _packed: None)


def load(path: str, container: str, database: str, expected: int) -> dict[str, Any]:
    """Load a dump into a database of a container, in one transaction, reading it meanwhile.

    Raises:
        Wrong: It is not whole, or PostgreSQL does not accept it. What was loaded of it may be
            there: the database must be one that nobody uses.
    """
    argv = ("docker", "exec", "--interactive", container, "sh", "-c", LOAD, "psql", database)
    with _running(argv, "psql", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as psql:
        pipe = psql.process.stdin
        if pipe is None:
            raise Wrong("psql takes nothing")
        try:
            found = _through(path, container, expected, pipe.write)
            pipe.close()
        except BrokenPipeError as error:
            psql.must_be_good()
            raise Wrong("psql ended before the dump did") from error
        psql.must_be_good()
    return found


def _through(
    path: str, container: str, expected: int, sink: Callable[[bytes], Any]
) -> dict[str, Any]:
    """Read a dump, and give it on as gzip."""
    reader, digest, told = Reader(), hashlib.sha256(), Progress(expected)
    size = Path(path).stat().st_size
    for packed, texts in _forms(path, container, digest.update):
        for text in texts:
            reader.feed(text)
        sink(packed)  # what leads elsewhere has been refused before anybody does it
        told.at(reader.bytes)
    return {"sha256": digest.hexdigest(), "bytes": size, **reader.finish()}


def _forms(
    path: str, container: str, heard: Callable[[bytes], Any]
) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """Return the pieces of a dump as gzip, each with the text it holds."""
    with Path(path).open("rb", buffering=0) as file:
        magic = file.read(5)
        file.seek(0)
        raw = _heard(file, heard)
        if magic.startswith(GZIP) or not magic:
            yield from _unpacked(raw)
        elif magic.startswith(ZSTD):
            with _running(("zstd", "-dcq", "--", path), "zstd", stdout=subprocess.PIPE) as program:
                yield from _packed(_pieces(program.process.stdout))
                program.must_be_good()
            _exhaust(raw)
        elif magic == CUSTOM:
            argv = ("docker", "exec", "--interactive", container, "sh", "-c", AS_TEXT)
            with _running(argv, "pg_restore", stdin=file, stdout=subprocess.PIPE) as program:
                yield from _unpacked(_pieces(program.process.stdout))
                program.must_be_good()
            file.seek(0)
            _exhaust(raw)
        else:
            yield from _packed(raw)


def _unpacked(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    gunzip = Gunzip()
    for piece in pieces:
        yield piece, gunzip.unpack(piece)
    gunzip.finish()


def _packed(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    for piece in pieces:
        yield gzip.compress(piece), iter((piece,))
    yield gzip.flush(), iter(())


def _heard(file: IO[bytes], heard: Callable[[bytes], Any]) -> Iterator[bytes]:
    for piece in _pieces(file):
        heard(piece)
        yield piece


def _exhaust(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def _pieces(file: IO[bytes] | None) -> Iterator[bytes]:
    # As much as there is: a buffer that is waited for to be full would let both ends wait.
    while file and (piece := os.read(file.fileno(), PIECE)):
        yield piece


@dataclass(frozen=True)
class Program:
    """A program that runs, and what it complained about."""

    name: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def must_be_good(self) -> None:
        """Wait for its end.

        Raises:
            Wrong: It ended with an error.
        """
        code = self.process.wait()
        if code == 0:
            return
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        raise Wrong("\n".join((f"{self.name} ended with exit code {code}", *lines[-10:])))


@contextmanager
def _running(argv: Sequence[str], name: str, **pipes: Any) -> Iterator[Program]:
    """Start a program; it does not outlive the block."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(argv, stderr=said, **pipes)
        except OSError as error:
            raise Wrong(f"{name} cannot be started: {error.strerror}") from error
        try:
            yield Program(name, process, said)
        finally:
            for end in (process.stdin, process.stdout):
                with suppress(OSError):
                    if end:
                        end.close()
            process.kill()
            process.wait()


VERBS: dict[str, Callable[..., dict[str, Any]]] = {"take": take, "read": read, "load": load}


def main(words: Sequence[str]) -> int:
    """Do as told: `VERB ARGUMENT... EXPECTED`, the last the bytes of text, 0 for unknown."""
    verb, *arguments, expected = words
    try:
        found, code = VERBS[verb](*arguments, int(expected)), 0
    except (Wrong, OSError) as error:
        found, code = {"wrong": str(error)}, WRONG
    sys.stdout.write(json.dumps(found) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
