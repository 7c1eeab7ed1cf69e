"""The parts that bring the code: a key of the host's own, whom it trusts, and its clone."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping

from deploy import git, origin
from deploy import host as hosts
from deploy.command import command, script
from deploy.layout import Layout
from deploy.origin import Address
from deploy.outcome import DeployFailed, Invalid
from deploy.setup.site import Server, Site

# The public half first: what has no private one is made again.
MAKE_KEY = """
umask 077
if [ ! -e "$1" ]; then
  part=$(mktemp -d -- "$(dirname -- "$1")/.part.XXXXXX")
  trap 'rm -rf -- "$part"' EXIT
  ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$part/key"
  sync -- "$part/key" "$part/key.pub"
  mv -T -- "$part/key.pub" "$1.pub"
  mv -T -n -- "$part/key" "$1"
fi
chmod -- 0600 "$1"
ssh-keygen -y -f "$1" >"$1.pub.part"
mv -T -- "$1.pub.part" "$1.pub"
"""
SCAN = 'ssh-keyscan -T 10 -p "$2" -- "$1" 2>/dev/null'
INIT = """
umask 077
[ -e "$1/HEAD" ] || [ -e "$1/.git" ] || git init --quiet --bare -- "$1"
"""


def key_missing(site: Site) -> tuple[str, ...]:
    """Return whether the host needs a key to fetch the code."""
    if site.server is None:
        return ()
    key = site.layout.deploy_key
    there = site.host.run(command("test", "-s", key)).ok and _public(site)
    return () if there else (f"make an ed25519 key, {key}",)


def make_key(site: Site) -> None:
    """Make it; one that is there stays."""
    site.host.ask(script(MAKE_KEY, site.layout.deploy_key, f"deploy@{site.host.name}"))


def key_told(site: Site) -> tuple[str, ...]:
    """Say what to enter where."""
    if site.server is None or not (public := _public(site)):
        return ()
    return (f"The key of the host, which only has to read ({site.server.page}):", public)


def _public(site: Site) -> str:
    return hosts.read(site.host, f"{site.layout.deploy_key}.pub").strip()


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
        except (ValueError, binascii.Error):
            continue
        found[words[1]] = words[2]
    return found


def changed(pinned: Mapping[str, str], shown: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of key that a host shows another one of than the one that is known."""
    return tuple(kind for kind in pinned if kind in shown and shown[kind] != pinned[kind])


def trust_missing(site: Site) -> tuple[str, ...]:
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


def trust(site: Site) -> None:
    """Write its keys down, unless some are known already."""
    server = site.server
    if server is None or _pinned(site, server):
        return
    shown = _shown(site, server)
    before = hosts.read(site.host, site.layout.known_hosts)
    lines = [f"{server.entry} {kind} {key}" for kind, key in shown.items()]
    text = "".join(f"{line}\n" for line in (*before.splitlines(), *lines))
    hosts.replace(site.host, site.layout.known_hosts, text.encode())


def trust_told(site: Site) -> tuple[str, ...]:
    """Say whose keys are trusted, to be compared with what that server publishes."""
    if site.server is None:
        return ()
    pinned = _pinned(site, site.server)
    told = f"{site.server.entry} is known by these; compare them with what it publishes:"
    return (told, *(f"  {line}" for line in _fingerprints(pinned)))


def _fingerprints(keys: Mapping[str, str]) -> Iterable[str]:
    return (f"{kind} {fingerprint(key)}" for kind, key in sorted(keys.items()))


def _pinned(site: Site, server: Server) -> dict[str, str]:
    return host_keys(hosts.read(site.host, site.layout.known_hosts), server.entry)


def _shown(site: Site, server: Server) -> dict[str, str]:
    asked = script(SCAN, server.name, str(server.port), deadline=40)
    return host_keys(site.host.run(asked).out, server.entry)


def ssh_command(layout: Layout) -> str:
    """Return how git in the clone calls ssh: with our key, and for whom we trust, alone."""
    options = {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": layout.known_hosts,
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return command("ssh", "-i", layout.deploy_key, *words).shown()


def _address(site: Site) -> Address:
    if site.address is None:
        raise Invalid(
            "Where the host fetches the code is unknown",
            where=site.host.name,
            next_step="the same again with --github-url URL, or set git.url in invoke.yaml",
        )
    return site.address


def clone_missing(site: Site) -> tuple[str, ...]:
    """Return what is to be done to the clone.

    Raises:
        Invalid: Nobody said what to clone.
    """
    address, folder = _address(site), site.layout.repository
    if not site.host.run(git.git(folder, "rev-parse", "--git-dir")).ok:
        return (f"clone {address.url} into {folder}",)
    said = []
    remote = _config(site, "remote.origin.url")
    if remote != address.url:
        said.append(f"fetch {address.url}{f' instead of {remote}' if remote else ''}")
    if site.server and _config(site, "core.sshCommand") != ssh_command(site.layout):
        said.append("have the clone use the deploy key")
    branch = site.session.settings.git.branch
    if not said and origin.meant(site.host, folder, branch) is None:
        said.append(f"fetch {branch}")
    return tuple(said)


def clone(site: Site) -> None:
    """Make the clone, and fetch all that is to be had.

    Raises:
        Invalid: It cannot be fetched; the message says where the key has to be entered.
        DeployFailed: It has no such branch as is to be deployed.
    """
    address, folder = _address(site), site.layout.repository
    site.host.ask(script(INIT, folder))
    if site.server:
        _set(site, "core.sshCommand", ssh_command(site.layout))
    try:
        origin.fetch_all(site.host, folder, address)
    except Invalid as error:
        if site.server is None:
            raise
        raise Invalid(
            error.what,
            where=error.where,
            why=error.why,
            next_step=f"enter the key below ({site.server.page}); then the same again",
        ) from error
    branch = site.session.settings.git.branch
    if origin.meant(site.host, folder, branch) is None:
        raise DeployFailed(
            f"{address.url} has no branch {branch}",
            where=site.host.name,
            next_step="git push it there, or correct git.branch in invoke.yaml",
        )


def identity_missing(site: Site) -> tuple[str, ...]:
    """Return who git is to say that it is."""
    wanted = _identity(site).items()
    return tuple(f"set {key} to {value}" for key, value in wanted if _config(site, key) != value)


def set_identity(site: Site) -> None:
    """Set it."""
    for key, value in _identity(site).items():
        _set(site, key, value)


def _identity(site: Site) -> dict[str, str]:
    given = {"user.email": site.wish.email, "user.name": site.wish.name}
    return {key: value for key, value in given.items() if value}


def _config(site: Site, key: str) -> str:
    # Of the clone alone: what else the user there has set is not what we have set.
    words = ("config", "--local", "--get", key)
    return site.host.run(git.git(site.layout.repository, *words)).out.rstrip("\n")


def _set(site: Site, key: str, value: str) -> None:
    words = ("config", "--local", "--replace-all", key, value)
    site.host.ask(git.git(site.layout.repository, *words))
