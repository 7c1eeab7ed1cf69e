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
import secrets
import subprocess
import sys
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from deploy.postgres.program import pieces_of, running
from deploy.postgres.progress import Progress
from deploy.postgres.reader import Gunzip, Reader, Wary, Wrong

WRONG = 3

# What one statement waits for a lock: a table that somebody holds must not hold the backup.
# pg_dump writes 8 kB at a time, and each time costs the engine's copying the same: dd collects.
# sh has no pipefail: how pg_dump ended goes round dd.
DUMP = """
export PGDATABASE="$POSTGRES_DB"
exec 3>&1
exit "$({ {
  pg_dump --compress=1 --lock-wait-timeout=60s -U "$POSTGRES_USER"
  echo $? >&4
} | dd ibs=64k obs=64k status=none >&3; } 4>&1)"
"""
# The lock is ours, of a key that no file can know: psql then refuses its own commands to the end.
# A dump that locks itself could unlock itself too: its header and its last lines stay behind.
LOAD = r"""
export PGDATABASE="$1"
{ printf %s "$2"; gzip -dc | tail -c "+$3" | head -c "-$4"; } |
  exec psql -X -w -q -v ON_ERROR_STOP=1 -1 -o /dev/null -U "$POSTGRES_USER" -f -
"""
KNOWS_LOCKS = r"""
export PGDATABASE="$1"
printf '\\restrict x\n' | exec psql -X -w -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -f -
"""
UNKNOWN = 3  # how psql ends when it does not know a command
OWN_LOCK = re.compile(rb"--\n-- PostgreSQL database dump\n--\n\n\\restrict ([A-Za-z0-9]+)\n")
HEADER = 4096  # bytes that hold it
NO_WAY = ("", "1", "0")  # all of it, as it is
MISMATCH = "server version mismatch"  # as pg_dump says it
AS_TEXT = "pg_restore -f - | gzip -1"
GZIP, ZSTD, CUSTOM = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PGDMP"


def take(container: str, part: str, recipient: str, name: str, expected: int) -> dict[str, Any]:
    """Dump a container's database into a file, reading it as it arrives.

    With a recipient the file holds it encrypted, without one as it is; with a name it is
    another database of the same server.

    Raises:
        Wrong: pg_dump failed, what arrived is no whole dump, or it cannot be encrypted.
    """
    reader, gunzip, digest = Reader(), Gunzip(), hashlib.sha256()
    told, size = Progress(expected), 0
    other = ("--env", f"POSTGRES_DB={name}") if name else ()
    argv = ("docker", "exec", *other, container, "sh", "-c", DUMP)
    with (
        running(argv, "pg_dump", stdout=subprocess.PIPE) as program,
        Path(part).open("wb") as file,
        _encrypting(recipient, file) as write,
    ):
        for piece in pieces_of(program.process.stdout):
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
    with running(argv, "age", stdin=subprocess.PIPE, stdout=file) as age:
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
    return _through(path, container, Reader(), expected, lambda _packed: None)


def load(path: str, container: str, database: str, described: str, expected: int) -> dict[str, Any]:
    """Load a dump into a database of a container, in one transaction, reading it meanwhile.

    Args:
        path: The dump.
        container: In which psql runs.
        database: What it fills.
        described: The check sum in its manifest, empty for a dump of somebody else.
        expected: Bytes of text that it may have.

    Raises:
        Wrong: It is not whole, or PostgreSQL does not accept it. What was loaded of it may be
            there: the database must be one that nobody uses.
    """
    locks = _knows_locks(container, database)
    reader = Reader() if locks or described else Wary()
    way = _way(path, container) if locks else NO_WAY
    argv = ("docker", "exec", "--interactive", container, "sh", "-c", LOAD, "psql", database, *way)
    with running(argv, "psql", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as psql:
        pipe = psql.process.stdin
        if pipe is None:
            raise Wrong("psql takes nothing")
        try:
            found = _through(path, container, reader, expected, pipe.write)
            pipe.close()
        except BrokenPipeError as error:
            psql.must_be_good()
            raise Wrong("psql ended before the dump did") from error
        psql.must_be_good()
    return found


def _knows_locks(container: str, database: str) -> bool:
    """Ask whether the psql of a container can be locked: since 15.14, 16.10 and 17.6."""
    argv = ("docker", "exec", container, "sh", "-c", KNOWS_LOCKS, "psql", database)
    with running(argv, "psql", stdout=subprocess.DEVNULL) as psql:
        if psql.process.wait() == UNKNOWN:
            return False
        psql.must_be_good()
    return True


def _way(path: str, container: str) -> tuple[str, str, str]:
    """Return what LOAD does with a dump: our lock, where it begins, what is cut off its end."""
    head = b""
    with closing(_forms(path, container, lambda _piece: None)) as forms:
        for _, texts in forms:
            head += b"".join(texts)
            if len(head) >= HEADER:
                break
    own = OWN_LOCK.match(head)
    first, last = (own.end() + 1, len(b"\\unrestrict \n\n" + own[1])) if own else (1, 0)
    return f"\\restrict {secrets.token_hex(32)}\n", str(first), str(last)


def _through(
    path: str, container: str, reader: Reader, expected: int, sink: Callable[[bytes], Any]
) -> dict[str, Any]:
    """Read a dump, and give it on as gzip."""
    digest, told = hashlib.sha256(), Progress(expected)
    size = Path(path).stat().st_size
    for packed, texts in _forms(path, container, digest.update):
        for text in texts:
            reader.feed(text)
        sink(packed)  # what leads elsewhere has been refused before anybody does it
        told.at(reader.bytes)
    return {"sha256": digest.hexdigest(), "bytes": size, **reader.finish()}


def _forms(
    path: str, container: str, heard: Callable[[bytes], Any]
) -> Generator[tuple[bytes, Iterator[bytes]], None, None]:
    """Return the pieces of a dump as gzip, each with the text it holds."""
    with Path(path).open("rb", buffering=0) as file:
        magic = file.read(5)
        file.seek(0)
        raw = _heard(file, heard)
        if magic.startswith(GZIP) or not magic:
            yield from _unpacked(raw)
        elif magic.startswith(ZSTD):
            with running(("zstd", "-dcq", "--", path), "zstd", stdout=subprocess.PIPE) as program:
                yield from _packed(pieces_of(program.process.stdout))
                program.must_be_good()
            _exhaust(raw)
        elif magic == CUSTOM:
            argv = ("docker", "exec", "--interactive", container, "sh", "-c", AS_TEXT)
            with running(argv, "pg_restore", stdin=file, stdout=subprocess.PIPE) as program:
                yield from _unpacked(pieces_of(program.process.stdout))
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
    for piece in pieces_of(file):
        heard(piece)
        yield piece


def _exhaust(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


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
