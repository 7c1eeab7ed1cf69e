"""A Debian root file system made by debootstrap and imported once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sandbox.machine import apt
from sandbox.machine.facts import has_program
from sandbox.shell import ask, must, pipe, stage

LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
CACHES = ("var/cache/apt", "var/lib/apt/lists", "var/log", "dev")


def image_name(suite: str) -> str:
    """Return the name of the imported file system."""
    return f"server-agent-rootfs:{suite}"


def ensure(suite: str) -> str:
    """Make the file system of a Debian release, unless the engine has it.

    Args:
        suite: The release's code name.

    Returns:
        The name of the image.
    """
    name = image_name(suite)
    if ask(("docker", "image", "inspect", "--format", "-", name), deadline=20).ok:
        return name
    if not has_program("debootstrap"):
        with stage("system packages: debootstrap"):
            apt.refresh()
            apt.install(("debootstrap", "debian-archive-keyring"))
    with stage(f"Debian {suite} root file system (debootstrap)"):
        build(suite, name)
    return name


def build(suite: str, name: str) -> None:
    """Run debootstrap and hand what it made to the engine."""
    # /tmp may be small, or mounted so that debootstrap refuses it.
    folder = Path(tempfile.mkdtemp(prefix="server-agent-rootfs-", dir="/var/tmp"))
    try:
        must(
            apt.as_root(
                (
                    *("debootstrap", "--variant=minbase", "--include=ca-certificates"),
                    *(f"--keyring={apt.KEYRING}", suite, str(folder), apt.mirrors().main),
                )
            ),
            deadline=600,
            next_step="check that the package mirror is reachable, then run it again",
        )
        pack(folder, name)
    finally:
        ask(apt.as_root(("rm", "-rf", str(folder))), deadline=120)


def pack(folder: Path, name: str) -> None:
    """Import a folder as an image, without what a slim image does without."""
    excluded = [f"--exclude=./{path}/*" for path in (*LEFT_OUT, *CACHES)]
    tar = apt.as_root(("tar", "-C", str(folder), "-c", *excluded, "."))
    pipe(tar, ("docker", "import", "-", name), deadline=300, next_step="docker info")
