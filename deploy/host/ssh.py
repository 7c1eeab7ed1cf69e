"""A machine over SSH: the only room that knows Fabric and paramiko."""

from __future__ import annotations

import contextlib
import io
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fabric
import paramiko

from deploy.command import LINK, Command
from deploy.host.process import Host, Process
from deploy.log import RunLog
from deploy.outcome import Unreachable

CONNECT = 15  # seconds for each of: TCP, banner, authentication, opening a channel
KEEPALIVE = 5  # seconds
STALLED = 25_000  # milliseconds without an acknowledgement after which the link is dead
CHUNK = 1 << 15
DEAD = (OSError, EOFError, paramiko.SSHException)  # what a link raises that is no more


class SshProcess:
    """A command behind a channel of its own."""

    def __init__(self, name: str, channel: paramiko.Channel) -> None:
        self._name = name
        self._channel = channel
        self._stopped = False

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input."""
        try:
            self._channel.sendall(data)
        except (EOFError, paramiko.SSHException) as error:
            raise BrokenPipeError(str(error) or "The connection was lost") from error

    def end_input(self) -> None:
        """Close its standard input."""
        try:
            self._channel.shutdown_write()
        except (EOFError, paramiko.SSHException) as error:
            raise BrokenPipeError(str(error) or "The connection was lost") from error

    def read(self) -> bytes:
        """Return the next bytes of its standard output, empty at the end.

        Raises:
            Unreachable: The link was lost before the end.
        """
        return self._read(self._channel.recv)

    def read_error(self) -> bytes:
        """Return the next bytes of its standard error, empty at the end.

        Raises:
            Unreachable: The link was lost before the end.
        """
        return self._read(self._channel.recv_stderr)

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, or None when it still runs after that time.

        Raises:
            Unreachable: The link was lost; paramiko says -1 then.
        """
        if not self._channel.status_event.wait(seconds):
            return None
        if self._channel.exit_status < 0:
            raise self._lost()
        return self._channel.exit_status

    def stop(self) -> None:
        """Close the channel."""
        self._stopped = True
        with contextlib.suppress(*DEAD):  # it has something to send, too
            self._channel.close()

    def _read(self, receive: Callable[[int], bytes]) -> bytes:
        try:
            data = receive(CHUNK)
        except DEAD as error:  # what it read it also acknowledges, and that can fail
            if self._stopped:
                return b""
            raise self._lost() from error
        return data or self._end()

    def _end(self) -> bytes:
        # paramiko ends a stream alike when it is over and when the link is.
        link = self._channel.transport
        if self._channel.eof_received or self._stopped:
            return b""
        if link is None or link.saved_exception is not None or not link.is_active():
            raise self._lost()
        return b""

    def _lost(self) -> Unreachable:
        return Unreachable(
            "The connection was lost; how the last command ended is unknown",
            where=self._name,
            next_step="inv status shows what is live",
        )


def ssh_host(name: str, config_files: tuple[Path, ...], log: RunLog) -> Host:
    """Return a host over SSH; the connection opens with the first command.

    Args:
        name: A name from the configuration files, or `[user@]host[:port]`.
        config_files: ssh_config files, the first that sets an option wins, as in ssh(1).
        log: Where every command and its output is written.
    """
    settings = _ssh_config(config_files)
    connection = fabric.Connection(
        name,
        config=fabric.Config(ssh_config=settings, overrides={"load_ssh_configs": False}),
        connect_timeout=CONNECT,
        connect_kwargs={
            "banner_timeout": CONNECT,
            "auth_timeout": CONNECT,
            "channel_timeout": CONNECT,
        },
    )
    opening = threading.Lock()
    link = secrets.token_hex(8)

    def start(command: Command) -> Process:
        with opening, _unreachable(name):
            channel = _open(connection, settings)
            # Left to itself the shell becomes the command, and when a signal ends that, SSH
            # sends no exit code: it would look like a lost link.
            channel.exec_command(f"{LINK}={link} {command.wire()}; exit $?")
            return SshProcess(name, channel)

    return Host(name, connection.host, start, connection.close, log)


def _ssh_config(files: tuple[Path, ...]) -> paramiko.SSHConfig:
    texts = [path.read_text() for path in files if path.is_file()]
    return paramiko.SSHConfig.from_file(io.StringIO("\n\n".join(texts)))


def _open(connection: Any, settings: paramiko.SSHConfig) -> paramiko.Channel:
    if connection.is_connected:
        try:
            return _session(connection)
        except DEAD:
            if connection.is_connected:
                raise
        # The link was dead and nobody had noticed; nothing has been run yet.
    _connect(connection, settings)
    return _session(connection)


def _session(connection: Any) -> paramiko.Channel:
    channel: paramiko.Channel = connection.transport.open_session(timeout=CONNECT)
    return channel


def _connect(connection: Any, settings: paramiko.SSHConfig) -> None:
    # Fabric accepts any host key and loads none (fabric#2071): both are set right here.
    hop = connection.gateway if isinstance(connection.gateway, fabric.Connection) else None
    for link in (hop, connection):
        if link is not None:
            _pin(link.client, settings.lookup(link.original_host or link.host))
    connection.open()
    connection.transport.set_keepalive(KEEPALIVE)
    sock = connection.transport.sock
    if isinstance(sock, socket.socket) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED)


def _pin(client: paramiko.SSHClient, options: paramiko.SSHConfigDict) -> None:
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    named = options.get("userknownhostsfile", "~/.ssh/known_hosts")
    # paramiko has taken the quotes off, so one path with blanks looks like several.
    whole = Path(named).expanduser()
    for path in [whole] if whole.is_file() else map(Path, named.split()):
        if path.expanduser().is_file():
            client.load_system_host_keys(str(path.expanduser()))


@contextlib.contextmanager
def _unreachable(name: str) -> Iterator[None]:
    def fail(what: str, error: Exception, next_step: str) -> Unreachable:
        return Unreachable(what, where=name, why=str(error) or repr(error), next_step=next_step)

    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise fail(
            "The host's key has changed: this may be another machine",
            error,
            "find out why; when the change is right, ssh-keygen -R the host and accept its new key",
        ) from error
    except paramiko.AuthenticationException as error:
        raise fail("The host does not accept our key", error, f"ssh {name} true") from error
    except paramiko.SSHException as error:
        unknown = "not found in known_hosts" in str(error)
        what = "The host's key is unknown" if unknown else "The SSH connection failed"
        cure = "compare its fingerprint, then accept it with: ssh HOST true" if unknown else ""
        raise fail(what, error, cure or f"ssh {name} true") from error
    except (OSError, EOFError, ValueError) as error:
        raise fail("The host cannot be reached", error, f"ssh {name} true") from error
