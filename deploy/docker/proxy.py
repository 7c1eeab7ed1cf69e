"""The front door: Caddy's configuration, and who it sends traffic to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from deploy.command import Command, command
from deploy.docker import compose
from deploy.settings import Settings

MIGRATE = "net.ipv4.tcp_migrate_req"
ADMIN = "http://127.0.0.1:2019"


def service(settings: Settings, folder: str, bind: str, *, migrates: bool) -> dict[str, Any]:
    """Return the compose service of the proxy.

    Args:
        settings: The settings.
        folder: The folder on the host that holds the Caddyfile. The folder is mounted, not
            the file: a file replaced by rename would stay the old one inside.
        bind: The address on the host whose ports it takes.
        migrates: Whether the host's kernel has `MIGRATE` (Linux 5.14 and later). A reload
            opens a new listening socket beside the old one; without it the kernel resets
            the connections that wait in the old one's queue when that is closed.
    """
    domain = settings.proxy.domain
    ports = ["80:80", "443:443"] if domain else [f"{settings.proxy.port}:{settings.proxy.port}"]
    return {
        "image": settings.proxy.image,
        "container_name": settings.proxy.container,
        "restart": "unless-stopped",
        "ports": [f"{bind}:{port}" for port in ports],
        "volumes": [f"{folder}:/etc/caddy:ro", "deploy-proxy-data:/data"],
        "logging": compose.logging(),
        **({"sysctls": {MIGRATE: "1"}} if migrates else {}),
    }


def caddyfile(settings: Settings, upstream: str | None) -> str:
    """Return the configuration that sends all traffic to one release, or to none.

    Args:
        settings: The settings.
        upstream: The release's name on the network; None answers 503 to everybody.
    """
    site = settings.proxy.domain or f":{settings.proxy.port}"
    drain = f"{settings.proxy.drain_timeout:g}s"
    if upstream is None:
        body = '\trespond "no release is live yet" 503'
    else:
        target = f"{upstream}:{settings.app.port}"
        body = (
            f"\treverse_proxy {target} {{\n\t\tlb_try_duration 5s\n\t\tlb_try_interval 100ms\n\t}}"
        )
    tls = "" if settings.proxy.domain else "\tauto_https off\n"
    return f"{{\n\tadmin 127.0.0.1:2019\n\tgrace_period {drain}\n{tls}}}\n\n{site} {{\n{body}\n}}\n"


def reload(settings: Settings) -> Command:
    """Make the proxy read its configuration anew, with no connection dropped."""
    return command(
        "docker",
        "exec",
        settings.proxy.container,
        "caddy",
        "reload",
        "--config",
        "/etc/caddy/Caddyfile",
        "--adapter",
        "caddyfile",
        deadline=30,
    )


def configuration(settings: Settings) -> Command:
    """Ask the running proxy for the configuration it works by."""
    return command(
        "docker",
        "exec",
        settings.proxy.container,
        "wget",
        "-q",
        "-O",
        "-",
        f"{ADMIN}/config/",
        deadline=15,
    )


def upstreams(text: str) -> tuple[str, ...]:
    """Given the proxy's configuration, return the names it sends traffic to."""
    try:
        data = json.loads(text)
    except ValueError:
        return ()
    return tuple(dial.rpartition(":")[0] for dial in _dials(data))


def _dials(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("dial"), str):
            yield value["dial"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _dials(item)
