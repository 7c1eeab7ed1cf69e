"""The parts that bring the code: a key of the host's own, its clone, and who git is there."""

from __future__ import annotations

from deploy import git, origin
from deploy import host as hosts
from deploy.command import command, script
from deploy.layout import Layout
from deploy.origin import Address
from deploy.outcome import DeployFailed, Invalid
from deploy.setup.site import Site

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
INIT = """
umask 077
[ -e "$1/HEAD" ] || [ -e "$1/.git" ] || git init --quiet --bare -- "$1"
"""


def key_missing(site: Site) -> tuple[str, ...]:
    """Return whether the host needs a key to fetch the code, or others may read the one it has."""
    key = site.layout.deploy_key
    there = site.host.run(command("test", "-s", key)).ok and _public(site)
    if site.server and not there:
        return (f"make an ed25519 key, {key}",)
    return (f"close {key} to others",) if _is_open(site) else ()


def make_key(site: Site) -> None:
    """Make it, or close it to others, since ssh uses none that is open; it is never replaced."""
    if _is_open(site):
        site.host.ask(command("chmod", "--", "0600", site.layout.deploy_key))
    if site.server:
        site.host.ask(script(MAKE_KEY, site.layout.deploy_key, f"deploy@{site.host.name}"))


def _is_open(site: Site) -> bool:
    rights = hosts.rights(site.host, site.layout.deploy_key)
    return rights is not None and rights.open


def key_told(site: Site) -> tuple[str, ...]:
    """Say what to enter where."""
    if site.server is None or not (public := _public(site)):
        return ()
    return (f"The key of the host, which only has to read ({site.server.page}):", public)


def _public(site: Site) -> str:
    return hosts.read(site.host, f"{site.layout.deploy_key}.pub").strip()


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
