"""This package on a host: what runs there by itself comes from it.

It is sent once, and lies in a folder that is named after its content.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deploy.command import Command, command, script
from deploy.host import Host
from deploy.outcome import Invalid

PACKAGE = Path(__file__).resolve().parent
INSTALL = """
umask 077
mkdir -p -- "$1"
if [ -d "$1/$2" ]; then cat >/dev/null; exit 0; fi
part=$(mktemp -d -- "$1/.part.XXXXXX")
trap 'rm -rf -- "$part"' EXIT
tar -x -z -f - -C "$part"
chmod -R a+rX -- "$part"
sync -- "$part"
mv -T -- "$part" "$1/$2" 2>/dev/null || [ -d "$1/$2" ]
"""


@dataclass(frozen=True)
class Bundle:
    """An archive, and the name that stands for its content."""

    name: str
    data: bytes


def bundle(*others: str) -> Bundle:
    """Return the package's source files as a tar.gz that is the same for the same files.

    Args:
        others: Packages that come along, from where this Python has them. They must do without
            what is compiled: the host's Python may be another.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for folder in (PACKAGE, *map(_folder, others)):
            for path in sorted(folder.rglob("*.py")):
                content = path.read_bytes()
                entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    name = hashlib.sha256(raw.getvalue()).hexdigest()[:16]
    return Bundle(name, gzip.compress(raw.getvalue(), mtime=0))


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise Invalid(
            f"This machine has no Python package {package}, which the host is to get",
            next_step="./bootstrap; or pip install -r requirements/dev.txt",
        )
    return Path(found.origin).parent


def install(found: Bundle, folder: str) -> Command:
    """Unpack the package in its own folder below the one that is named."""
    return script(INSTALL, folder, found.name, stdin=found.data)


def provide(host: Host, folder: str) -> str:
    """Return where on a host the package lies, after sending it when it was not there.

    Args:
        host: The host.
        folder: Where such packages are kept on it.
    """
    if host.package:
        return host.package
    found = bundle()
    path = f"{folder}/{found.name}"
    if not host.run(command("test", "-d", path)).ok:
        host.ask(install(found, folder))
    return path


def module(host: Host, package: str, name: str, *words: str, deadline: float) -> Command:
    """Return the command that runs a part of the package on a host."""
    there = ("env", f"PYTHONPATH={package}", host.python, "-s", "-m", name)
    return command(*there, *words, deadline=deadline)
