"""Base images: pulled where a registry answers, built as stand-ins where none does."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from deploy.outcome import Invalid
from sandbox import certificates, rootfs
from sandbox.machine import apt
from sandbox.shell import ask, must, say, stage

FOLDER = Path(__file__).resolve().parent / "stand_ins"
PULL_DEADLINE = 120.0
BUILD_DEADLINE = 900.0


@dataclass(frozen=True)
class StandIn:
    """How an image is built where it cannot be pulled.

    Args:
        folder: Its Dockerfile's folder under `stand_ins`.
        suite: The Debian release it is made of.
        base: The image it builds on; none for Debian itself.
        arguments: What its Dockerfile is told besides.
    """

    folder: str
    suite: str
    base: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


STAND_INS: Mapping[str, StandIn] = {
    "debian:bookworm-slim": StandIn("debian", "bookworm"),
    "debian:trixie-slim": StandIn("debian", "trixie"),
    "python:3.11-slim-bookworm": StandIn("python", "bookworm", "debian:bookworm-slim"),
    "postgres:15-bookworm": StandIn("postgres", "bookworm", "debian:bookworm-slim"),
    "postgres:17-trixie": StandIn(
        *("postgres", "trixie", "debian:trixie-slim"),
        {"BASE": "debian:trixie-slim", "MAJOR": "17"},
    ),
    "caddy:2": StandIn("caddy", "bookworm", "debian:bookworm-slim"),
}


def ensure(names: Sequence[str]) -> None:
    """Give the engine these images: what it has stays, the rest is pulled or built.

    Args:
        names: Names of `STAND_INS`.

    Raises:
        Invalid: When one can neither be pulled nor built.
    """
    missing = [name for name in names if not present(name)]
    with ThreadPoolExecutor(max_workers=3) as pool:
        pulled = list(pool.map(pull, missing))
    supply([name for name, done in zip(missing, pulled, strict=True) if not done])


def supply(names: Sequence[str]) -> None:
    """Build stand-ins, and first what they build on."""
    bases = dict.fromkeys(base for name in names if (base := STAND_INS[name].base))
    if bases:
        supply([base for base in bases if not present(base)])
    # Most of a build is waiting for the mirror and for dpkg by turns.
    with ThreadPoolExecutor(max_workers=3) as pool:
        list(pool.map(build_stand_in, names))


def present(name: str) -> bool:
    """Tell whether the engine holds the image."""
    return ask(("docker", "image", "inspect", "--format", "-", name), deadline=20).ok


def pull(name: str) -> bool:
    """Try to get the image from its registry; a refusal is an answer, not an error."""
    start = time.monotonic()
    pulled = ask(("docker", "pull", "--quiet", name), deadline=PULL_DEADLINE).ok
    if pulled:
        say(f"  {name}: pulled in {time.monotonic() - start:.1f} s")
    return pulled


def build_stand_in(name: str) -> None:
    """Build what carries the official image's name and keeps its contract."""
    stand_in = STAND_INS[name]
    arguments = dict(stand_in.arguments)
    if not stand_in.base:
        mirrors = apt.mirrors()
        arguments = {
            "ROOTFS": rootfs.ensure(stand_in.suite),
            "SUITE": stand_in.suite,
            "MIRROR": mirrors.main,
            "SECURITY": mirrors.security,
        }
    with stage(f"{name}: no registry answers, stand-in built"):
        build(name, FOLDER / stand_in.folder, arguments)


def build(name: str, folder: Path, arguments: Mapping[str, str]) -> None:
    """Build a folder's Dockerfile, with this machine's certificates beside it.

    Args:
        name: What the image is called.
        folder: The Dockerfile's folder.
        arguments: Build arguments.

    Raises:
        Invalid: When the build fails.
    """
    with tempfile.TemporaryDirectory(prefix="server-agent-build-") as name_of_context:
        context = Path(name_of_context) / "context"
        shutil.copytree(folder, context)
        certificates.write_extra(context / "ca")
        words = [
            word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")
        ]
        must(
            ("docker", "build", "--quiet", "--tag", name, *words, str(context)),
            deadline=BUILD_DEADLINE,
            next_step="check that the package mirror is reachable, then run it again",
        )
    if not present(name):
        raise Invalid(
            f"{name} was built but the engine does not have it", next_step="docker images"
        )
