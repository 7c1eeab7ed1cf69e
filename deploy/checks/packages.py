"""Debian's and Ubuntu's packages: which of them bring what a machine lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ENGINE = "docker.io"
CLIENT = "docker-cli"
PLUGINS = {
    "compose": ("docker-compose-v2", "docker-compose-plugin", "docker-compose"),
    "buildx": ("docker-buildx", "docker-buildx-plugin"),
}
# Of a program whose package has another name.
OF_PROGRAM = {
    "awk": "mawk",
    "crontab": "cron",
    "flock": "util-linux",
    "python": "python3",
    "setsid": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ssh-keyscan": "openssh-client",
}


def parse_candidates(policy: str) -> dict[str, str]:
    """Given the answer of `apt-cache policy`, return the version on offer by package."""
    found: dict[str, str] = {}
    package = ""
    for line in policy.splitlines():
        if line and not line.startswith(" "):
            package = line.rstrip(":")
        elif line.strip().startswith("Candidate:"):
            version = line.split(":", 1)[1].strip()
            if version != "(none)":
                found[package] = version
    return found


def pick(plugin: str, candidates: Mapping[str, str]) -> str | None:
    """Return the package that brings this plugin, if there is one in the right version."""
    for package in PLUGINS[plugin]:
        version = candidates.get(package, "")
        # Debian 12 calls the old Python program, version 1, by the same name.
        if version and not (package == "docker-compose" and version.startswith("1.")):
            return package
    return None


def asked_about(programs: Iterable[str]) -> tuple[str, ...]:
    """Return the packages whose versions decide what is installed for these programs."""
    plain = (OF_PROGRAM.get(name, name) for name in programs if name not in ("docker", "compose"))
    return (*plain, ENGINE, CLIENT, *(name for names in PLUGINS.values() for name in names))


def to_install(programs: Iterable[str], candidates: Mapping[str, str]) -> tuple[str, ...]:
    """Return the packages that bring programs.

    Args:
        programs: What is missing; `docker` is the engine and its client, `compose` the plugin.
        candidates: What is on offer.
    """
    wanted: dict[str, None] = {}
    missing = set(programs)
    if "docker" in missing:
        # Where the client comes inside docker.io there is no package of its own.
        wanted |= dict.fromkeys((ENGINE, *((CLIENT,) if CLIENT in candidates else ())))
    if missing & {"docker", "compose"}:
        plugins = ("compose", "buildx") if "docker" in missing else ("compose",)
        wanted |= dict.fromkeys(name for plugin in plugins if (name := pick(plugin, candidates)))
    for name in sorted(missing - {"docker", "compose"}):
        wanted[OF_PROGRAM.get(name, name)] = None
    return tuple(wanted)
