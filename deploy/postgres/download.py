"""A backup brought home: what has arrived stays, and only the rest is fetched the next time."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from deploy.command import script
from deploy.host import Host, local_host, transfer
from deploy.host.process import CommandFailed
from deploy.outcome import DataFailed, Unreachable
from deploy.postgres.backup import Backup
from deploy.postgres.dump import Say
from deploy.postgres.progress import Progress

LONGEST = 7200.0  # seconds that one try may take
REST = 'exec tail -c "+$(($2 + 1))" -- "$1"'
ADD = 'exec cat >>"$1"'


def download(host: Host, backup: Backup, folder: Path, say: Say) -> Path:
    """Copy a backup to this machine, and see that every byte of it arrived.

    Args:
        host: Where it is.
        backup: One with a check sum: what is put together here must have the same.
        folder: Where it goes. What arrived of one that was cut off lies there under a hidden
            name that holds a part of the check sum: nothing else is ever added to it.
        say: Told now and then how far it is.

    Raises:
        DataFailed: It did not arrive; nothing is there that could pass for it.
        Unreachable: The link was lost, and nothing arrived since.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / PurePosixPath(backup.name).name
    part = folder / f".{target.name}.{backup.sha256[:12]}.part"
    again = f"inv backup.download {backup.name}"
    try:
        with _alone(part) as file:
            if target.is_file() and _sha256(target) == backup.sha256:
                say(f"  {target} is here already")
                part.unlink(missing_ok=True)
            else:
                _fetch(host, backup, part, say)
                os.fsync(file)
                part.rename(target)
    except Unreachable as error:
        raise Unreachable(
            f"{error.what.partition(';')[0]}; what arrived of the backup is kept",
            where=error.where,
            why=error.why,
            next_step=f"{again} goes on from there",
        ) from error
    except (OSError, CommandFailed) as error:
        why = error.as_text() if isinstance(error, CommandFailed) else str(error)
        raise DataFailed(
            "The backup could not be copied here", where=str(target), why=why, next_step=again
        ) from error
    except KeyboardInterrupt:
        say(f"  what arrived of the backup is kept; to go on: {again}")
        raise
    return target


@contextmanager
def _alone(part: Path) -> Iterator[int]:
    """Hold a part, which is made when there is none: two who add to it would garble it."""
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataFailed(
                "Somebody else is just copying this backup here",
                where=str(part),
                next_step="wait for its end",
            ) from error
        yield file
    finally:
        os.close(file)


def _fetch(host: Host, backup: Backup, part: Path, say: Say) -> None:
    """Bring a part to its whole; one that turns out to be of something else is begun anew.

    Raises:
        DataFailed: The whole is not the backup; it is removed.
    """
    pieced = _fetch_rest(host, backup, part, say)
    if pieced and _sha256(part) != backup.sha256:
        say("  what was there of it before is not right: fetching the whole")
        os.truncate(part, 0)
        _fetch_rest(host, backup, part, say)
    if _sha256(part) != backup.sha256:
        part.unlink()
        raise DataFailed(
            "The copy differs from the backup",
            where=f"{host.name}:{backup.path}",
            why="its check sum is not the one in the manifest",
            next_step=f"inv backup.verify {backup.name}; inv backup --download",
        )


def _fetch_rest(host: Host, backup: Backup, part: Path, say: Say) -> bool:
    """Add what a part lacks, over a new link as often as the one before brought something.

    Returns:
        Whether it was put together from pieces.
    """
    if part.stat().st_size > backup.bytes:
        os.truncate(part, 0)
    pieced = part.stat().st_size > 0
    while (there := part.stat().st_size) < backup.bytes:
        if there:
            say(f"  {there / 1e6:,.1f} of {backup.bytes / 1e6:,.1f} MB are here: going on")
        told = Progress(
            backup.bytes - there, "the rest" if there else "it", lambda t: say(f"  {t}")
        )
        rest = script(REST, backup.path, str(there), deadline=LONGEST)
        add = script(ADD, str(part), stdin=b"", deadline=LONGEST)
        try:
            transfer(host, rest, local_host(host.log), add, told.at)
            break
        except Unreachable as error:
            if part.stat().st_size == there:
                raise
            pieced = True
            say(f"  {error.what.partition(';')[0]}")
    return pieced


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
