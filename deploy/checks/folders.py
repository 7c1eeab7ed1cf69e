"""The folders of a host: whether we may write to them, and who else may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploy.checks.finding import Finding, good, stop, warning
from deploy.command import Command, script
from deploy.host import Host

MODES = """
id -un
for path in "$@"; do
  [ -e "$path" ] || continue
  write=no; if [ -w "$path" ]; then write=yes; fi
  echo "$(stat -c %a -- "$path") $write $path"
done
"""
PARENT = """
folder=$1
while [ ! -e "$folder" ]; do folder=$(dirname -- "$folder"); done
[ -d "$folder" ] && [ -w "$folder" ]
"""
# What lies above them is for others as well.
MAKE = """
umask 022
while [ "$#" -gt 0 ]; do
  mkdir -p -- "$2"
  chmod -- "$1" "$2"
  shift 2
done
"""


@dataclass(frozen=True)
class Place:
    """A file or folder that is there.

    Args:
        path: Where.
        mode: Its mode.
        writable: Whether we may write to it.
    """

    path: str
    mode: int
    writable: bool

    def beyond(self, allowed: int) -> int:
        """Return what others may do that they should not."""
        return self.mode & ~allowed & 0o777


def look(host: Host, paths: Iterable[str]) -> tuple[str, dict[str, Place]]:
    """Return who we are on a host, and those of the paths that are there."""
    return parse(host.ask(script(MODES, *paths)))


def parse(text: str) -> tuple[str, dict[str, Place]]:
    """Given the same as lines, return it."""
    user, *lines = text.splitlines()
    words = [line.split(" ", 2) for line in lines]
    return user, {path: Place(path, int(mode, 8), write == "yes") for mode, write, path in words}


def findings(user: str, places: Iterable[Place], allowed: Mapping[str, int]) -> tuple[Finding, ...]:
    """Return what is wrong with what is there.

    Args:
        user: Who we are there.
        places: What is there.
        allowed: The most that each mode may allow.
    """
    known = list(places)
    closed = [item.path for item in known if not item.writable]
    wide = [f"{item.path} ({item.mode:o})" for item in known if item.beyond(allowed[item.path])]
    said = []
    if closed:
        cure = f"as root there: chown -R {user} {closed[0]}"
        said.append(stop("folders", f"{user} may not write to {', '.join(closed)}", cure))
    if wide:
        what = f"others may do more than they should with {', '.join(wide)}"
        said.append(warning("folders", what, "inv setup puts it right"))
    return tuple(said) or (good("folders", f"they are {user}'s alone"),)


def can_make(host: Host, root: str) -> bool:
    """Tell whether we may make a folder that is not there."""
    return host.run(script(PARENT, root)).ok


def not_to_be_made(root: str, user: str) -> Finding:
    """Return the finding for one that we may not make."""
    cure = f"as root there: install -d -o {user} -m 0755 {root}"
    return stop("folders", f"{root} is not there, and {user} cannot make it", cure)


def make(modes: Mapping[str, int]) -> Command:
    """Return the command that makes folders, and gives each its mode."""
    return script(MAKE, *(word for path, mode in modes.items() for word in (f"{mode:04o}", path)))
