"""What containers may have that run before anybody has approved their commit.

Who pushes a commit writes its compose file. So all counts as a way to the host but what is listed
here: what one of these containers is given stays within it, and goes with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from deploy.command import script
from deploy.host import Host
from deploy.outcome import Invalid

TOP = ("services", "volumes", "networks", "name", "version")
# Keys of a service that change nothing beyond its container, whatever their value is.
PLAIN = frozenset(
    (
        *("attach", "cap_drop", "command", "container_name", "cpu_count", "cpu_period"),
        *("cpu_quota", "cpu_shares", "cpus", "cpuset", "mem_swappiness"),
        *("depends_on", "domainname", "entrypoint", "environment", "expose", "group_add"),
        *("healthcheck", "hostname", "init", "labels", "links", "mem_limit", "mem_reservation"),
        *("memswap_limit", "pids_limit", "platform", "profiles", "pull_policy", "read_only"),
        *("restart", "shm_size", "stdin_open", "stop_grace_period", "stop_signal", "sysctls"),
        *("tmpfs", "tty", "ulimits", "user", "working_dir"),
    )
)
# What every container has that drops nothing; one that drops all may take some of them back.
CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
NO_MORE = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")
BUILD = (
    *("args", "context", "dockerfile", "dockerfile_inline", "labels", "no_cache", "platforms"),
    *("pull", "shm_size", "target"),
)
SHARED = {  # the keys that a volume or a network may have; of its driver, only the engine's own
    "volumes": ("local", ("driver", "labels")),
    "networks": ("bridge", ("attachable", "driver", "internal", "labels")),
}
MOUNTS = ("volume", "tmpfs")
LOGS = ("json-file", "local", "none")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")  # of one letter it would be a drive of Windows
# What real paths are, only the machine knows where they lie.
OUTSIDE = """
here=$(realpath -- "$1"); shift
for path in "$@"; do
  case $(realpath -m -- "$here/$path")/ in "$here"/*) ;; *) printf '%s\\n' "$path" ;; esac
done
"""
WHY = "a pushed commit decides what stands there before anybody has approved it, and {}"


def rendered(data: Mapping[str, Any], where: str) -> str:
    """Given the compose file of the tests, return the one that they run from.

    It holds what was looked at and nothing else: another reader of the file of the commit may
    find in it what ours does not. What is built gets no name that it chooses itself, which could
    be that of an image the host uses.

    Args:
        data: The content of the file.
        where: What messages call it.

    Raises:
        Invalid: It asks for more than a container may have that is thrown away.
    """
    found = list(_too_much(data))
    if found:
        raise Invalid(
            f"The tests ask for more than they may have: {'; '.join(found)}",
            where=where,
            why=WHY.format("with this it would reach the host"),
            next_step="take it out: tests have what their image holds, named volumes, tmpfs and "
            "networks of their own, in which a service is reached by its name",
        )
    import yaml  # noqa: PLC0415 - a host that conducts a run has none, and renders nothing

    services = data["services"]
    built = {
        item["image"]: item["build"]
        for item in services.values()
        if "image" in item and "build" in item
    }
    file = {
        "services": {name: _unnamed(item, built) for name, item in services.items()},
        **{kind: data[kind] for kind in SHARED if kind in data},
    }
    return yaml.safe_dump(file, sort_keys=False)


def _unnamed(service: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    image = str(service.get("image"))
    if image not in built:
        return dict(service)
    rest = {key: value for key, value in service.items() if key != "image"}
    return {"build": built[image], **rest}


def paths(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a compose file that may run reads of the commit's files."""
    found = []
    for service in data["services"].values():
        if "build" in service:
            build = _build(service["build"])
            context = build.get("context", ".")
            found += [context, f"{context}/{build.get('dockerfile', 'Dockerfile')}"]
        found += (path for path, _ in env_files(service.get("env_file")))
    return tuple(dict.fromkeys(found))


def see_inside(host: Host, folder: str, names: Sequence[str]) -> None:
    """See that paths of an exported commit lead to nothing else on the host.

    Args:
        host: Where it lies.
        folder: The folder that it was exported to.
        names: The paths, as they stand below it.

    Raises:
        Invalid: One is a link that leads out of the folder.
    """
    found = host.ask(script(OUTSIDE, folder, *names)).splitlines()
    if found:
        raise Invalid(
            f"{', '.join(found)} leads out of the commit's files",
            where=host.name,
            why=WHY.format("by a link it would read the host's own files"),
            next_step="commit the file itself, not a link",
        )


def inside(path: Any) -> bool:
    """Tell whether a path that stands in a compose file is one of the commit's own files."""
    if not isinstance(path, str) or not path or re.search(r"^[/~-]|[$:\\\n\0]", path):
        return False
    return ".." not in PurePosixPath(path).parts


def _too_much(data: Mapping[str, Any]) -> Iterator[str]:
    """Name all that a file asks for beyond what it may have."""
    yield from (str(key) for key in data if key not in TOP and not _comment(key))
    for name, service in data["services"].items():
        yield from (f"service {name}: {what}" for what in _of_service(service))
    for kind, (driver, known) in SHARED.items():
        given = data.get(kind) or {}
        if not isinstance(given, dict):
            yield kind
            continue
        for name, options in given.items():
            yield from (f"{kind} {name}: {what}" for what in _unknown(options or {}, known))
            if isinstance(options, dict) and options.get("driver", driver) != driver:
                yield f"{kind} {name}: driver {options['driver']}"


def _of_service(service: Mapping[str, Any]) -> Iterator[str]:
    for key, value in service.items():
        if key in JUDGES:
            yield from (f"{key} {what}" for what in JUDGES[key](value))
        elif key not in PLAIN and not _comment(key):
            yield str(key)


def _comment(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("x-")


def _unknown(given: Any, known: Sequence[str]) -> Iterator[str]:
    if not isinstance(given, dict):
        yield str(given)
        return
    yield from (str(key) for key in given if key not in known and not _comment(key))


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def _image(given: Any) -> Iterator[str]:
    if not isinstance(given, str):
        yield str(given)


def _build(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {"context": given}


def _builds(given: Any) -> Iterator[str]:
    build = _build(given)
    yield from _unknown(build, BUILD)
    for key in ("context", "dockerfile"):
        if key in build and not inside(build[key]):
            yield f"{key} {build[key]}"


def env_files(given: Any) -> list[tuple[Any, Any]]:
    """Return the entries of a service's `env_file`, each with its path."""
    entries = _listed(given)
    return [(item.get("path") if isinstance(item, dict) else item, item) for item in entries]


def _reads(given: Any) -> Iterator[str]:
    yield from (str(path) for path, _ in env_files(given) if not inside(path))


def _mounts(given: Any) -> Iterator[str]:
    yield from (str(item) for item in _listed(given) if not own(item))


def own(mount: Any) -> bool:
    """Tell whether a mount is a volume of the file's own, or memory."""
    if isinstance(mount, dict):
        source = mount.get("source")
        return mount.get("type") in MOUNTS and (source is None or _named(source))
    if not isinstance(mount, str) or "$" in mount:
        return False
    source, *rest = mount.split(":")
    return _named(source) if rest else source.startswith("/")


def _named(source: Any) -> bool:
    return isinstance(source, str) and bool(NAME.fullmatch(source))


def _joins(given: Any) -> Iterator[str]:
    if isinstance(given, dict):
        for options in given.values():
            yield from _unknown(options or {}, ("aliases",))


def _logs(given: Any) -> Iterator[str]:
    if not isinstance(given, dict) or given.get("driver", LOGS[0]) not in LOGS:
        yield str(given)


def confining(given: Any) -> list[Any]:
    """Return the options of a service's `security_opt` that take from it, and give nothing."""
    return [item for item in _listed(given) if item in NO_MORE]


def usual(given: Any) -> list[Any]:
    """Return the capabilities among those of `cap_add` that every container starts with."""
    return [item for item in _listed(given) if str(item).removeprefix("CAP_") in CAPABILITIES]


def _but(allowed: Callable[[Any], list[Any]]) -> Callable[[Any], Iterator[str]]:
    def judge(given: Any) -> Iterator[str]:
        kept = allowed(given)
        yield from (str(item) for item in _listed(given) if item not in kept)

    return judge


JUDGES: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "build": _builds,
    "cap_add": _but(usual),
    "env_file": _reads,
    "image": _image,
    "logging": _logs,
    "networks": _joins,
    "security_opt": _but(confining),
    "volumes": _mounts,
}
