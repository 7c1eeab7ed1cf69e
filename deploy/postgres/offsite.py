"""A copy of a backup off its host: sent by the host itself, and checked where it arrived."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from deploy.command import Command, command, script
from deploy.host import Host
from deploy.postgres import backup
from deploy.postgres.backup import Backup

# Where it arrives there may be little more than a shell. A link that is cut looks like the end.
RECEIVE = """
umask 077
mkdir -p -- "$1"
part=$1/.$2.part
trap 'rm -f -- "$part"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$part"
size=$(($(wc -c <"$part")))
if [ "$size" != "$3" ]; then echo "$size of $3 bytes arrived" >&2; exit 1; fi
sum=$(sha256sum <"$part")
if [ "${sum%% *}" != "$4" ]; then echo "what arrived has another check sum" >&2; exit 1; fi
sync -- "$part" 2>/dev/null || sync
mv -f -- "$part" "$1/$2"
"""
SSH = """
exec ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -- "$1" "$2" <"$3"
"""
# It compares by whatever check sum both ends know; the size, when there is none.
RCLONE = """
rclone copyto -- "$1" "$2/$3"
rclone check --one-way --include "/$3" -- "$(dirname -- "$1")" "$2"
"""


def copy(host: Host, item: Backup, to: str, deadline: float) -> None:
    """Copy a backup to where `database.copy_to` says, and its manifest after it.

    Args:
        host: Where it lies.
        item: The backup.
        to: `ssh:HOST:PATH` or `rclone:REMOTE:PATH`, as the host knows them.
        deadline: Seconds for each of the two.

    Raises:
        CommandFailed: It is not there, or not what it should be.
    """
    way, _, place = to.partition(":")
    send = {"ssh": by_ssh, "rclone": by_rclone}[way]
    text = backup.manifest(item)
    host.ask(send(place, item.path, item.bytes, item.sha256, deadline))
    digest = hashlib.sha256(text).hexdigest()
    host.ask(send(place, f"{item.path}.json", len(text), digest, deadline))


def by_ssh(place: str, path: str, size: int, sha256: str, deadline: float) -> Command:
    """Return the command that sends a file to `HOST:PATH`, where it is checked and put in place."""
    other, _, folder = place.partition(":")
    name = PurePosixPath(path).name
    receive = command("sh", "-euc", RECEIVE, "deploy", folder, name, str(size), sha256)
    return script(SSH, other, receive.shown(), path, deadline=deadline)


def by_rclone(place: str, path: str, _size: int, _sha256: str, deadline: float) -> Command:
    """Return the command that has rclone send a file to `REMOTE:PATH`, and compare the two."""
    return script(RCLONE, path, place.rstrip("/"), PurePosixPath(path).name, deadline=deadline)
