"""The compose file of an application, rendered for one release."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from deploy.docker import confined, engine
from deploy.docker.compose import PROXY_SERVICE, Place, logging, service_name
from deploy.outcome import Invalid

if TYPE_CHECKING:
    from deploy.settings import Settings

# What ties a service to others, of what any may have.
TIES = ("container_name", "depends_on", "labels", "links", "profiles")
# The folders that a host shows to its application: none of them is the commit's to say.
PUBLIC = re.compile(r"\$(DEPLOY_ROOT|\{DEPLOY_ROOT(:[-?][^${}]*)?\})/(public(/.*)?|logs/app)/?")
FILES = ("configs", "secrets")
COLON = re.compile(r":(?![^{]*})")  # but for those in ${NAME:-value}
NAMED = "commit the file, or name another in invoke.yaml"


def parse(text: str, where: str) -> dict[str, Any]:
    """Given the text of a compose file, return its content.

    Raises:
        Invalid: It is no compose file.
    """
    if not text.strip():
        raise Invalid(
            "The commit has no compose file, or an empty one", where=where, next_step=NAMED
        )
    import yaml  # noqa: PLC0415 - a host that conducts a run has none, and renders nothing

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(
            "The compose file cannot be read", where=where, why=" ".join(str(error).split())
        ) from error
    services = data.get("services") if isinstance(data, dict) else None
    if not isinstance(services, dict) or not all(isinstance(s, dict) for s in services.values()):
        raise Invalid("The compose file has no services", where=where, next_step=NAMED)
    return dict(data)


def render(
    data: Mapping[str, Any], settings: Settings, place: Place, proxy: Mapping[str, Any]
) -> str:
    """Given an application's compose file, return the one that its release runs from.

    Raises:
        Invalid: A service that the settings name is not in the file.
    """
    import yaml  # noqa: PLC0415 - as above

    named = (*settings.app.services, *settings.app.accessories)
    missing = [name for name in named if name not in data["services"]]
    if missing:
        raise Invalid(
            f"The compose file has no service {', '.join(missing)}",
            where=settings.deploy.compose_file,
            next_step=f"name one of: {', '.join(data['services'])}",
        )
    result = {
        key: copy.deepcopy(value) for key, value in data.items() if key not in ("name", "version")
    }
    services = result.pop("services")
    key = _network_key(result, settings.proxy.network)
    rendered = {
        name: _coming_back(_with_env(services[name], place)) for name in settings.app.accessories
    }
    for name in settings.app.services:
        rendered[service_name(name, place.release)] = _release_service(
            name, _with_env(services[name], place), settings, place, key
        )
    rendered[PROXY_SERVICE] = {**proxy, "networks": [key]}
    volumes = {**(result.get("volumes") or {}), "deploy-proxy-data": None}
    return yaml.safe_dump({**result, "services": rendered, "volumes": volumes}, sort_keys=False)


def apart(data: Mapping[str, Any], images: Mapping[str, str], place: Place) -> str:
    """Given a release's rendered file, return one in which some of its services stand apart.

    They are defined as there, but share nothing with what runs, and reach nothing outside:
    names, ports, volumes and labels are gone, and their network is one of their own. So is
    whatever would give them a right on the host: nobody has approved the file yet.

    Args:
        data: The content of the file.
        images: The image that each of the services runs.
        place: Where the release lies.

    Raises:
        Invalid: A service is not in the file.
    """
    missing = [name for name in images if name not in data["services"]]
    if missing:
        raise Invalid(f"The release's compose file has no service {', '.join(missing)}")
    kept = {kind: _files(data[kind]) for kind in FILES if kind in data}
    services = {name: _untied(data["services"][name], images[name], place) for name in images}
    for service in services.values():
        for kind in set(FILES) & service.keys():
            known = kept.get(kind, {})
            service[kind] = [item for item in service[kind] or () if _source(item) in known]
    file = {
        **kept,
        "services": services,
        "networks": {"default": {"internal": True}},
        "volumes": dict.fromkeys(data.get("volumes") or {}),
    }
    import yaml  # noqa: PLC0415 - as above

    return yaml.safe_dump(file, sort_keys=False)


def own_files(text: str) -> tuple[str, ...]:
    """Given a file in which services stand apart, return what it reads of the commit's files."""
    data = parse(text, "")
    found: list[Any] = []
    for service in data["services"].values():
        found += (item["source"] for item in service.get("volumes", ()) if item["type"] == "bind")
        found += (path for path, _ in confined.env_files(service.get("env_file")))
    found += (item.get("file") for kind in FILES for item in data.get(kind, {}).values())
    return tuple(dict.fromkeys(path for path in found if confined.inside(path)))


def _files(given: Any) -> dict[str, Any]:
    """Return the configs or secrets of a file but for those that lie elsewhere on the host."""
    return {
        name: copy.deepcopy(item)
        for name, item in (given or {}).items()
        if isinstance(item, dict) and ("file" not in item or confined.inside(item["file"]))
    }


def _source(reference: Any) -> Any:
    return reference.get("source") if isinstance(reference, dict) else reference


def _untied(service: Mapping[str, Any], image: str, place: Place) -> dict[str, Any]:
    plain = confined.PLAIN.difference(TIES).union(FILES)
    result = {key: copy.deepcopy(value) for key, value in service.items() if key in plain}
    limits = _limits(service)
    if limits:
        result["deploy"] = {"resources": {"limits": copy.deepcopy(limits)}}
    for key, allowed in (("cap_add", confined.usual), ("security_opt", confined.confining)):
        if kept := allowed(service.get(key)):
            result[key] = kept
    if "env_file" in service:
        result["env_file"] = [
            item
            for path, item in confined.env_files(service["env_file"])
            if path == place.env_file or confined.inside(path)
        ]
    if "volumes" in service:
        result["volumes"] = [_harmless(_mount(item)) for item in service["volumes"] or ()]
    return {**result, "image": image, "pull_policy": "never", "restart": "no"}


def _limits(service: Mapping[str, Any]) -> Any:
    """Return the limits that a service stands under as `deploy` says them, the host's guard."""
    found: Any = service
    for key in ("deploy", "resources", "limits"):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _mount(given: Any) -> dict[str, Any]:
    """Return a mount in its long form."""
    if isinstance(given, dict):
        return given
    parts = COLON.split(str(given))
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0]}
    source, target, mode = (*parts, "")[:3]
    kind = "bind" if source[:1] in (".", "/", "~", "$") else "volume"
    read_only = "ro" in mode.split(",")
    return {"type": kind, "source": source, "target": target, "read_only": read_only}


def _harmless(mount: dict[str, Any]) -> dict[str, Any]:
    """Let a mount change nothing on the host, and show nothing of it but what is the release's."""
    if confined.own(mount):
        return mount
    source = str(mount.get("source", ""))
    kind = PurePosixPath(source).suffix
    known = mount.get("type") == "bind" and (confined.inside(source) or _public(source))
    if known and kind != ".sock" and (kind or mount.get("read_only")):
        plain = {key: mount[key] for key in ("type", "source", "target")}
        return {**plain, "read_only": True}
    return {"type": "volume", "target": mount["target"]}


def _public(source: str) -> bool:
    return bool(PUBLIC.fullmatch(source)) and ".." not in PurePosixPath(source).parts


def live_name(service: str, data: Mapping[str, Any], settings: Settings) -> str:
    """Return the name that the live container of a service always has."""
    given = data["services"][service].get("container_name")
    return str(given) if given else f"{settings.deploy.project}-{service}"


def _release_service(
    name: str, service: dict[str, Any], settings: Settings, place: Place, network: str
) -> dict[str, Any]:
    live = str(service.get("container_name") or f"{settings.deploy.project}-{name}")
    if "build" in service or "image" not in service:
        service["image"] = place.image
        service["pull_policy"] = "never"
    for unwanted in ("build", "ports", "depends_on", "profiles"):
        service.pop(unwanted, None)
    service = _coming_back({"restart": "always", **service})
    service["labels"] = _labels(service.get("labels")) | {
        engine.RESTART_LABEL: str(service["restart"]),
        engine.PROJECT_LABEL: settings.deploy.project,
        engine.RELEASE_LABEL: place.release,
        engine.SERVICE_LABEL: name,
    }
    if _replicas(service) > 1:  # they cannot share a name
        service.pop("container_name", None)
    else:
        service["container_name"] = f"{live}_{place.release}"
        service["labels"][engine.LIVE_NAME_LABEL] = live
    if name == settings.app.services[0]:
        service["networks"] = _joined(service.get("networks"), network)
    service.setdefault("logging", logging())
    return service


def _coming_back(service: dict[str, Any]) -> dict[str, Any]:
    """Let a service that shall come back with the engine do so also when that was killed."""
    always = service.get("restart") == "unless-stopped"
    return {**service, "restart": "always"} if always else service


def _replicas(service: Mapping[str, Any]) -> int:
    deploy = service.get("deploy")
    given = deploy.get("replicas") if isinstance(deploy, dict) else None
    found = service.get("scale", 1) if given is None else given
    return found if isinstance(found, int) else 1


def _labels(given: Any) -> dict[str, str]:
    if isinstance(given, list):
        return {key: value for key, _, value in (str(item).partition("=") for item in given)}
    return dict(given or {})


def _with_env(service: Mapping[str, Any], place: Place) -> dict[str, Any]:
    result = dict(copy.deepcopy(service))
    given = result.get("env_file")
    if given is not None:
        entries = given if isinstance(given, list) else [given]
        own = {".env", "./.env"}
        result["env_file"] = [place.env_file if item in own else item for item in entries]
    return result


def _network_key(data: dict[str, Any], name: str) -> str:
    networks = data.setdefault("networks", None) or {}
    data["networks"] = networks
    for key, options in networks.items():
        if (options or {}).get("name") == name:
            return str(key)
    networks[name] = {"name": name}
    return name


def _joined(given: Any, network: str) -> dict[str, Any]:
    if not given:
        return {"default": None, network: None}
    current = given if isinstance(given, dict) else dict.fromkeys(given)
    return {**current, network: current.get(network)}
