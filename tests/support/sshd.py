"""A real sshd in a light container, with a key of its own and one for us."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.vps import container
from tests.support.agent import eventually

START = """
mkdir -p /run/sshd && install -d -m 0700 /root/.ssh
until [ -e /root/.ssh/ready ]; do sleep 0.05; done
chown -R root:root /root/.ssh /etc/ssh && exec /usr/sbin/sshd -D -e
"""


@dataclass(frozen=True)
class Sshd:
    """A running sshd, named `target` in its ssh_config."""

    name: str
    port: int
    folder: Path

    @property
    def config(self) -> Path:
        """The ssh_config that names it."""
        return self.folder / "config"

    def write(self, **options: str) -> Path:
        """Write an ssh_config for it with other options, and return its path."""
        known = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": "root",
            "IdentityFile": str(self.folder / "key"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
        }
        lines = [f'  {key} "{value}"' for key, value in {**known, **options}.items()]
        path = self.folder / f"config{'-' + uuid.uuid4().hex[:6] if options else ''}"
        path.write_text("\n".join(["Host target", *lines, ""]))
        return path

    def inside(self, *words: str) -> str:
        """Run a command in its container, not over SSH."""
        return docker("exec", self.name, *words)


def docker(*words: str) -> str:
    """Run docker.

    Raises:
        AssertionError: It failed.
    """
    done = subprocess.run(
        ("docker", *words), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"docker {words[0]}: {done.stderr}"
    return done.stdout.strip()


def make_key(path: Path) -> Path:
    """Make a key pair and return its private half."""
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    subprocess.run(words, check=True, timeout=30)
    return path


@contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    """Run an sshd until the block ends."""
    name = f"deploy-test-sshd-{uuid.uuid4().hex[:8]}"
    key, host = make_key(folder / "key"), make_key(folder / "host")
    image = container.ensure_image()
    publish = ("--publish", "127.0.0.1::22")
    docker("run", "--detach", "--init", "--name", name, *publish, image, "sh", "-c", START)
    try:
        eventually(lambda: _there(name, "/root/.ssh"))
        docker("cp", str(key.with_suffix(".pub")), f"{name}:/root/.ssh/authorized_keys")
        docker("cp", str(host), f"{name}:/etc/ssh/ssh_host_ed25519_key")
        docker("exec", name, "touch", "/root/.ssh/ready")
        port = int(docker("port", name, "22").splitlines()[0].rpartition(":")[2])
        public = host.with_suffix(".pub").read_text().split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
        found = Sshd(name, port, folder)
        found.write()
        eventually(lambda: _answers(found))
        yield found
    finally:
        docker("rm", "--force", name)


def _there(name: str, path: str) -> bool:
    words = ("docker", "exec", name, "test", "-e", path)
    return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0


def _answers(server: Sshd) -> bool:
    words = ("ssh", "-F", str(server.config), "-o", "BatchMode=yes", "target", "true")
    return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0
