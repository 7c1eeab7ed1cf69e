"""The part that knows the git server: its host keys, pinned, and never another one unseen."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping

from deploy import host as hosts
from deploy.command import script
from deploy.outcome import Invalid
from deploy.setup.site import Server, Site

SCAN = 'ssh-keyscan -T 10 -p "$2" -- "$1" 2>/dev/null'


def fingerprint(key: str) -> str:
    """Given a public key as base64, return its fingerprint as ssh tells it.

    Raises:
        ValueError: It is none.
    """
    digest = hashlib.sha256(base64.b64decode(key, validate=True)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def host_keys(text: str, entry: str) -> dict[str, str]:
    """Given lines of known_hosts, return the keys of a host by their kind."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != entry:
            continue
        try:
            fingerprint(words[2])
        except ValueError:
            continue
        found[words[1]] = words[2]
    return found


def changed(pinned: Mapping[str, str], shown: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of key that a host shows another one of than the one that is known."""
    return tuple(kind for kind in pinned if kind in shown and shown[kind] != pinned[kind])


def missing(site: Site) -> tuple[str, ...]:
    """Return whose keys are to be trusted.

    Raises:
        Invalid: A key has changed, or the server shows none.
    """
    server = site.server
    if server is None:
        return ()
    pinned, shown = _pinned(site, server), _shown(site, server)
    _not_changed(site, server, pinned, shown)
    if pinned:
        return ()
    if not shown:
        raise Invalid(
            f"{server.name} shows no host key at port {server.port}",
            where=site.host.name,
            next_step=f"ssh-keyscan -p {server.port} {server.name} there says why",
        )
    return (f"trust {server.entry}: {', '.join(_fingerprints(shown))}",)


def _not_changed(
    site: Site, server: Server, pinned: Mapping[str, str], shown: Mapping[str, str]
) -> None:
    for kind in changed(pinned, shown):
        raise Invalid(
            f"The host key of {server.entry} has changed: this may be another machine",
            where=f"{site.host.name}:{site.layout.known_hosts}",
            why=f"{kind} was {fingerprint(pinned[kind])}, and is {fingerprint(shown[kind])}",
            next_step="find out why; when the change is right, remove its lines from that file"
            " there, then the same again",
        )


def pin(site: Site) -> None:
    """Write its keys down, unless some are known already."""
    server = site.server
    if server is None or _pinned(site, server):
        return
    shown = _shown(site, server)
    before = hosts.read(site.host, site.layout.known_hosts)
    lines = [f"{server.entry} {kind} {key}" for kind, key in shown.items()]
    text = "".join(f"{line}\n" for line in (*before.splitlines(), *lines))
    hosts.replace(site.host, site.layout.known_hosts, text.encode())


def told(site: Site) -> tuple[str, ...]:
    """Say whose keys are trusted, to be compared with what that server publishes."""
    if site.server is None:
        return ()
    pinned = _pinned(site, site.server)
    how = f"{site.server.entry} is known by these; compare them with what it publishes:"
    return (how, *(f"  {line}" for line in _fingerprints(pinned)))


def _fingerprints(keys: Mapping[str, str]) -> Iterable[str]:
    return (f"{kind} {fingerprint(key)}" for kind, key in sorted(keys.items()))


def _pinned(site: Site, server: Server) -> dict[str, str]:
    return host_keys(hosts.read(site.host, site.layout.known_hosts), server.entry)


def _shown(site: Site, server: Server) -> dict[str, str]:
    asked = script(SCAN, server.name, str(server.port), deadline=40)
    return host_keys(site.host.run(asked).out, server.entry)
