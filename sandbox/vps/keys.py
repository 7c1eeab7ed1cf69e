"""How the laptop knows the box and the box knows the laptop."""

from __future__ import annotations

from pathlib import Path

from sandbox.shell import must

KEY = "key"
HOST_KEY = "host_key"
CONFIG = "ssh_config"
KNOWN_HOSTS = "known_hosts"
USERS = {"vps": "root", "vps-deploy": "deploy"}
SSH_PORT = 2222


def quoted(path: Path) -> str:
    """Return a path as ssh_config reads it, blanks and percent signs included."""
    return '"' + str(path).replace("%", "%%") + '"'


def ssh_config(directory: Path, address: str) -> str:
    """Return the text that names the box for ssh, Invoke and Fabric."""
    entries = [
        "\n".join(
            (
                f"Host {alias}",
                f"    HostName {address}",
                f"    Port {SSH_PORT}",
                f"    User {user}",
                f"    IdentityFile {quoted(directory / KEY)}",
                "    IdentitiesOnly yes",
                f"    UserKnownHostsFile {quoted(directory / KNOWN_HOSTS)}",
                "    GlobalKnownHostsFile /dev/null",
                "    StrictHostKeyChecking yes",
                "    BatchMode yes",
                "    ConnectTimeout 10",
                "    ServerAliveInterval 15",
                "    ServerAliveCountMax 4",
                "    LogLevel ERROR",
            )
        )
        for alias, user in USERS.items()
    ]
    return "\n\n".join(entries) + "\n"


def known_hosts(address: str, public_key: str) -> str:
    """Return the line that pins the box's host key."""
    kind, key = public_key.split()[:2]
    return f"[{address}]:{SSH_PORT} {kind} {key}\n"


def make(directory: Path) -> None:
    """Make both pairs of keys: the box's own is known before the box first answers."""
    for name, comment in ((KEY, "laptop"), (HOST_KEY, "vps")):
        must(
            (
                *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment),
                *("-f", str(directory / name)),
            ),
            deadline=20,
            next_step="ssh-keygen must work here",
        )


def write(directory: Path, address: str) -> None:
    """Write what ssh reads."""
    public = (directory / f"{HOST_KEY}.pub").read_text()
    (directory / KNOWN_HOSTS).write_text(known_hosts(address, public))
    (directory / CONFIG).write_text(ssh_config(directory, address))
