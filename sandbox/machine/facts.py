"""What stands on this machine: asked anew each time, cheaply."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sandbox.machine.environment import is_current
from sandbox.shell import ask

BASE_IMAGES = ("python:3.11-slim-bookworm", "postgres:15-bookworm", "caddy:2")
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


TOOLS = ("age", "zstd")  # of one program each, which has the package's name; the tests need them


class Engine(Enum):
    """How the Docker engine answers."""

    UP = "up"
    DOWN = "down"
    DENIED = "denied"


class Rights(Enum):
    """How this process may change the machine."""

    ROOT = "root"
    SUDO = "sudo"
    NONE = "none"


@dataclass(frozen=True)
class Facts:
    """Everything the plan depends on."""

    client: bool
    daemon: bool
    engine: Engine
    elsewhere: bool
    compose: bool
    buildx: bool
    ssh: bool
    ensurepip: bool
    environment: bool
    images: bool
    apt: bool
    rights: Rights
    tools: tuple[str, ...] = ()  # packages whose program is missing


def parse_info(out: str) -> tuple[bool, frozenset[str]]:
    """Given the answer of `docker info`, tell whether an engine answered, and the plugins.

    The client's exit code says nothing: 26 ends with 0 when there is no engine.
    """
    first, _, version = out.strip().partition("\n")
    try:
        found = json.loads(first or "null") or []
    except ValueError:
        found = []
    plugins = frozenset(plugin["Name"] for plugin in found if not plugin.get("Err"))
    return bool(version.strip()), plugins


def parse_refusal(err: str) -> Engine:
    """Given what the client said when no engine answered, return why."""
    return Engine.DENIED if "permission denied" in err.lower() else Engine.DOWN


def engine_state() -> tuple[Engine, frozenset[str]]:
    """Ask the Docker client for the engine and its own plugins, in one call when all is well."""
    template = "{{json .ClientInfo.Plugins}}\n{{.ServerVersion}}"
    up, plugins = parse_info(ask(("docker", "info", "--format", template), deadline=20).out)
    if up:
        return Engine.UP, plugins
    # `info` hides the reason behind a complaint about its template.
    return parse_refusal(ask(("docker", "version"), deadline=20).err), plugins


def engine_elsewhere() -> bool:
    """Tell whether the client was told to use an engine that is not this machine's own."""
    host = os.environ.get("DOCKER_HOST", "")
    context = os.environ.get("DOCKER_CONTEXT", "default")
    return (bool(host) and not host.startswith("unix:///var/run/docker.sock")) or (
        context != "default"
    )


def rights() -> Rights:
    """Find out how this process may change the machine, without asking a person."""
    if os.geteuid() == 0:
        return Rights.ROOT
    allowed = ask(("sudo", "-n", "true"), deadline=10).ok
    return Rights.SUDO if allowed else Rights.NONE


def has_images(names: tuple[str, ...]) -> bool:
    """Tell whether the engine holds all of these images."""
    return ask(("docker", "image", "inspect", "--format", "-", *names), deadline=20).ok


def has_program(name: str) -> bool:
    """Tell whether a program is installed, also where only root looks."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PATHS))
    return shutil.which(name, path=path) is not None


def gather(root: Path) -> Facts:
    """Look at this machine.

    Args:
        root: The project's folder.
    """
    engine, plugins = engine_state()
    return Facts(
        client=has_program("docker"),
        daemon=has_program("dockerd"),
        engine=engine,
        elsewhere=engine_elsewhere(),
        compose="compose" in plugins,
        buildx="buildx" in plugins,
        ssh=has_program("ssh") and has_program("ssh-keygen"),
        ensurepip=importlib.util.find_spec("ensurepip") is not None,
        environment=is_current(root, sys.version_info[:2]),
        images=engine is Engine.UP and has_images(BASE_IMAGES),
        apt=has_program("apt-get"),
        rights=rights(),
        tools=tuple(package for package in TOOLS if not has_program(package)),
    )
