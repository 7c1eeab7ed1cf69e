"""Files on a host: appended with a flush, replaced by rename, read whole."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.command import command, script
from deploy.host.process import Host

# A link that is cut looks like the end of the input, so the length is sent along.
RECEIVE = """
folder=$(dirname -- "$1")
part=$(mktemp -- "$folder/.part.XXXXXX")
trap 'rm -f -- "$part"' EXIT
cat >"$part"
[ "$(stat -c %s -- "$part")" = "$2" ]
"""
APPEND = f"""
umask 077
{RECEIVE}
dd if="$part" of="$1" bs=1M oflag=append conv=notrunc,fsync status=none
"""
REPLACE = f"""
{RECEIVE}
chmod -- "$3" "$part"
sync -- "$part"
mv -T -- "$part" "$1"
sync -- "$folder"
"""
# A link fails where a rename would replace what stands there.
CREATE = f"""
{RECEIVE}
chmod -- "$3" "$part"
sync -- "$part"
ln -T -- "$part" "$1"
sync -- "$folder"
"""
READ = 'if [ -e "$1" ]; then cat -- "$1"; fi'


def append(host: Host, path: str, data: bytes) -> None:
    """Append bytes to a file (0600 when new) and flush it to disk."""
    if data:
        host.ask(script(APPEND, path, str(len(data)), stdin=data))


def replace(host: Host, path: str, data: bytes, mode: str = "0600") -> None:
    """Put a file in place by rename after a flush, so that nobody ever sees half of it."""
    host.ask(script(REPLACE, path, str(len(data)), mode, stdin=data))


def create(host: Host, path: str, data: bytes, mode: str = "0600") -> None:
    """Put a new file in place, as a whole; one that is there stays as it is, and this fails."""
    host.ask(script(CREATE, path, str(len(data)), mode, stdin=data))


def read(host: Host, path: str) -> str:
    """Return the text of a file, empty when there is none."""
    return host.ask(script(READ, path))


@dataclass(frozen=True)
class Rights:
    """Who may do what with a file.

    Args:
        mode: Its mode in octal, as `stat` writes it.
        owner: The name of its owner.
    """

    mode: str
    owner: str

    @property
    def open(self) -> bool:
        """Whether others than its owner may do anything with it."""
        return bool(int(self.mode, 8) & 0o077)


def rights(host: Host, path: str) -> Rights | None:
    """Return who may do what with a file, or what a link leads to; nothing when we see none."""
    told = host.run(command("stat", "-L", "-c", "%a %U", "--", path)).out
    mode, _, owner = told.strip().partition(" ")
    return Rights(mode, owner) if owner else None
