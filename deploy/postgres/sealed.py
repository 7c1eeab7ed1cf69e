"""Encrypted backups: who can read them is not on their host, so they are decrypted elsewhere.

For a restore one lies readable on the host as long as it takes. Its name is one of those that a
run removes which finds that an earlier one was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.command import command, script
from deploy.host import Host, local_host, transfer
from deploy.host.process import CommandFailed
from deploy.outcome import DataFailed
from deploy.postgres.backup import ENCRYPTED, Backup

RECEIVE = 'umask 077; rm -f -- "$1"; exec cat >"$1"'


def readable(path: str) -> str:
    """Return where a dump can be read: of an encrypted one, where it lies decrypted meanwhile."""
    folder, _, name = path.rpartition("/")
    if not name.endswith(ENCRYPTED):
        return path
    return f"{folder}/.{name.removesuffix(ENCRYPTED)}.part"


def decrypt(host: Host, item: Backup, copy: Path, identity: Path, deadline: float) -> None:
    """Decrypt a backup on this machine, on its way back to its host.

    Args:
        host: Where it is to be read.
        item: The backup.
        copy: The encrypted file, here.
        identity: The file with the private key, which stays here.
        deadline: Seconds that it may take.

    Raises:
        DataFailed: This is not its key, or it did not arrive.
    """
    words = ("age", "--decrypt", "--identity", str(identity), "--", str(copy))
    into = script(RECEIVE, readable(item.path), stdin=b"", deadline=deadline)
    try:
        transfer(local_host(host.log), command(*words, deadline=deadline), host, into)
    except CommandFailed as error:
        raise DataFailed(
            "The backup could not be decrypted",
            where=item.name,
            why=error.as_text(),
            next_step=f"name the private key that belongs to {item.recipient}: --identity FILE",
        ) from error


def remove(host: Host, path: str) -> None:
    """Remove what lies decrypted of a dump; one that never was encrypted stays."""
    found = readable(path)
    if found != path:
        host.run(command("rm", "-f", "--", found))


@contextmanager
def read_once(host: Host, path: str) -> Iterator[str]:
    """Return where a dump can be read until the end of the block."""
    try:
        yield readable(path)
    finally:
        remove(host, path)
