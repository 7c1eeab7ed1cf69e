"""The front door: Caddy's configuration, and who it sends traffic to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deploy.command import Command, command
from deploy.docker import compose

if TYPE_CHECKING:
    from deploy.settings import Settings

MIGRATE = "net.ipv4.tcp_migrate_req"
INSIDE = "/etc/caddy/live"
ASK = "http://127.0.0.1:2016"
ESTABLISHED = "01"  # as /proc/net/tcp writes it
# Whoever has come by https shall come by it for a year.
STRICT = '\theader ?Strict-Transport-Security "max-age=31536000"\n'
PLAIN = "\tauto_https off\n"
# A certificate of its own is good for nobody who does not ask for it: it is told to no trust store.
INTERNAL = "\tlocal_certs\n\tskip_install_trust\n"
# A length that is said is judged before anything of the body is read; one that is not, as it comes.
# The answer has a body: over HTTP/2 a client that still sends may not see one that has none.
LIMIT = """\t\trequest_body {
\t\t\tmax_size %(bytes)d
\t\t}
\t\t@large expression `{header.Content-Length} != "" && int({header.Content-Length}) > %(bytes)d`
\t\thandle @large {
\t\t\trespond "the request is too large" 413
\t\t}
"""
# Idle connections to a release end after seconds, so that those left while it drains are busy.
CADDYFILE = """{
\tadmin 127.0.0.1:2019
\tgrace_period %(drain)s
%(tls)s\tservers {
\t\tprotocols h1 h2
\t\tmax_header_size %(header)s
\t\ttimeouts {
\t\t\tread_header 10s
\t\t\tread_body %(body_timeout)s
\t\t\tidle 2m
\t\t}
\t}
}

(live) {
\t@live file {
\t\troot %(folder)s
\t\ttry_files /* /* /*
\t}
\tmap {http.matchers.file.relative} {live_host} {live_port} {
\t\t"~^/?(.+)_([0-9]+)$" "${1}" "${2}"
\t\t"~^/?(.+)$" "${1}" "%(port)s"
\t}
}

%(site)s {
%(strict)s%(webhook)s	handle {
%(limit)s		import live
		handle @live {
			reverse_proxy {live_host}:{live_port} {
				lb_try_duration 5s
				lb_try_interval 100ms
				transport http {
					keepalive 2s
				}
			}
		}
		handle {
			respond "no release is live yet" 503
		}
	}
}

%(ask)s {
\timport live
\trespond @live {http.matchers.file.relative} 200
\trespond "" 204
}
"""

# Its limit is its own: that of the application says nothing about what GitHub sends.
WEBHOOK_BODY = 25 * 1024 * 1024  # bytes; GitHub sends no larger ones
WEBHOOK = """\thandle %(path)s {
%(limit)s\t\thandle {
\t\t\treverse_proxy unix/%(socket)s {
\t\t\t\tlb_try_duration 5s
\t\t\t\tlb_try_interval 100ms
\t\t\t}
\t\t}
\t}
"""
SOCKET = "/etc/caddy/listen/socket"  # below the folder that is mounted: in it, `listen/socket`


# It writes to its volume alone, and is root without root's rights; Caddy's image cannot start
# without the one that is left. No more CPU than the smallest host has: the engine refuses that.
CONFINED: Mapping[str, Any] = {
    "read_only": True,
    "tmpfs": ["/config", "/tmp"],  # noqa: S108 - in a container of its own
    "cap_drop": ["ALL"],
    "cap_add": ["NET_BIND_SERVICE"],
    "security_opt": ["no-new-privileges:true"],
    "mem_limit": "256m",
    "pids_limit": 256,
    "cpus": 1.0,
}


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
    return {
        "image": settings.proxy.image,
        "container_name": settings.proxy.container,
        "restart": "always",
        "ports": [f"{bind}:{port}:{port}" for port in ports(settings)],
        "volumes": [f"{folder}:/etc/caddy:ro", "deploy-proxy-data:/data"],
        "logging": compose.logging(),
        **CONFINED,
        **({"sysctls": {MIGRATE: "1"}} if migrates else {}),
    }


def ports(settings: Settings) -> tuple[int, ...]:
    """Return the ports on the host that it takes."""
    return (80, 443) if settings.proxy.domain else (settings.proxy.port,)


def taken(text: str, settings: Settings) -> int | None:
    """Given what Compose said when the proxy did not start, return the port that is not free."""
    if "address already in use" not in text and "port is already allocated" not in text:
        return None
    return next((port for port in ports(settings) if re.search(rf":{port}\b", text)), None)


def caddyfile(settings: Settings) -> str:
    """Return the configuration that sends all traffic to the release that the live folder names.

    The folder holds one file, whose name is the upstream. It is looked up for each request, so
    that a switch is the rename of that file: atomic, lasting, and no connection notices it.
    Caddy lists the folder and then looks for what it has found; who comes between finds nothing,
    and so it looks again.
    A webhook's path goes to the listener on the host, over a socket beside that folder.
    Without a file everybody is answered 503. With a domain it is served by https alone.
    `ASK` answers with the name, found the same way.
    """
    door, path = settings.proxy, settings.webhook.path
    return CADDYFILE % {
        "tls": _certificates(door.certificates) if door.domain else PLAIN,
        "strict": STRICT if door.domain else "",
        "site": door.domain or f":{door.port}",
        "webhook": _webhook(path) if path else "",
        "header": f"{door.max_header_kb}KB",
        "limit": LIMIT % {"bytes": door.max_body_mb * 1_000_000},
        "body_timeout": f"{door.body_timeout:g}s",
        "ask": ASK,
        "folder": INSIDE,
        "port": settings.app.port,
        "drain": f"{door.drain_timeout:g}s",
    }


def passes(text: str, path: str) -> bool:
    """Tell whether a configuration passes webhooks at a path on."""
    return _webhook(path) in text


def _webhook(path: str) -> str:
    return WEBHOOK % {"path": path, "limit": LIMIT % {"bytes": WEBHOOK_BODY}, "socket": SOCKET}


def _certificates(issuer: str) -> str:
    if issuer == "internal":
        return INTERNAL
    return "" if issuer == "acme" else f"\tacme_ca {issuer}\n"


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


def ask_upstream(settings: Settings) -> Command:
    """Ask the running proxy who it sends traffic to; it answers with nothing for nobody."""
    return command(
        *("docker", "exec", settings.proxy.container, "wget", "-q", "-O", "-", ASK), deadline=15
    )


def upstream_name(service: str, port: int) -> str:
    """Return the name of the file in the live folder that sends traffic to a service's port.

    The port stands in it, since two releases may listen on different ones.
    """
    return f"{service}_{port}"


def upstream(text: str) -> str:
    """Given the proxy's answer, return the name it sends traffic to, empty for nobody."""
    return text.strip().removeprefix("/")


def connections(settings: Settings) -> Command:
    """Ask for the proxy's TCP connections, as the kernel lists them."""
    return command(
        *("docker", "exec", settings.proxy.container, "cat", "/proc/net/tcp"), deadline=15
    )


def connected(text: str, addresses: Iterable[str], port: int) -> int:
    """Given /proc/net/tcp, return how many connections to these IPv4 addresses are open."""
    ends = {f"{_reversed_hex(address)}:{port:04X}" for address in addresses}
    rows = (line.split() for line in text.splitlines()[1:])
    return sum(1 for row in rows if len(row) > 3 and row[2] in ends and row[3] == ESTABLISHED)


def _reversed_hex(address: str) -> str:
    return "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
