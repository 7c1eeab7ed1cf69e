"""A real sshd in a light container, with a key of its own and one for us."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
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


class Relay:
    """Passes connections on to a port of this machine, until it forgets them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._known: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port = int(self._listener.getsockname()[1])

    def forget(self) -> None:
        """Answer what comes over today's connections by closing them, and not before."""
        self._known.clear()

    def close(self) -> None:
        """End everything."""
        self.forget()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._known.add(near)
                thread = threading.Thread(target=self._serve, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            back = threading.Thread(target=_pass, args=(far, near))
            back.start()
            with contextlib.suppress(OSError):
                while (data := near.recv(1 << 16)) and near in self._known:
                    far.sendall(data)
                far.shutdown(socket.SHUT_RDWR)
            back.join()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def relayed(target: int) -> Iterator[Relay]:
    """Run a relay to a port until the block ends."""
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()
