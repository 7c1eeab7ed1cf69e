"""A machine over SSH: the only room that knows Fabric and paramiko."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import fabric
import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE

from deploy.command import LINK, Command, script
from deploy.host.process import SSH_PORT, Host, Process
from deploy.log import RunLog
from deploy.outcome import Unreachable

CONNECT = 15  # seconds for each of: TCP, banner, authentication, opening a channel
KEEPALIVE = 5  # seconds between two questions whether the host is still there
STALLED = 25.0  # seconds without a word from the host after which the link is dead
CHUNK = 1 << 15
REFUSING = 5.0  # seconds that a host may refuse to start a command: it may be out of processes
SOON = 3.0  # seconds that ending a command may take before it is left to the lock's end
# A channel that is closed ends nothing by itself. Who ignores the polite signal gets the other.
END = """
for turn in $(seq 100); do
  found=$(grep -lsz -- "^DEPLOY_LINK=$1\\$" /proc/[0-9]*/environ || true)
  [ -n "$found" ] || exit 0
  signal=TERM; [ "$turn" -lt 50 ] || signal=KILL
  for file in $found; do
    process=${file#/proc/}; kill -s "$signal" -- "${process%/environ}" 2>/dev/null || true
  done
  sleep 0.05
done
"""
DEAD = (OSError, EOFError, paramiko.SSHException)  # what a link raises that is no more


class Listening:
    """A socket that is dead when nothing arrives any more.

    What the other side acknowledges says little: between us and the host may stand a proxy or
    another host that does so for one that is gone.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._heard = time.monotonic()

    def recv(self, size: int) -> bytes:
        """Return what has arrived; paramiko asks several times a second.

        Raises:
            TimeoutError: Nothing has, yet.
            ConnectionAbortedError: Nothing has for too long.
        """
        try:
            data: bytes = self._sock.recv(size)
        except TimeoutError as error:
            if time.monotonic() - self._heard > STALLED:
                raise ConnectionAbortedError(
                    errno.ECONNABORTED, f"nothing was heard of the host for {STALLED:g} s"
                ) from error
            raise
        self._heard = time.monotonic()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Link(paramiko.Transport):
    """A connection that says last of a channel that it is closed.

    paramiko sends a message after it has let go of the channel, so that its answer to the host's
    own end can overtake it; and sshd disconnects whoever sends to a channel that is no more.
    """

    def __init__(self, sock: Any, **more: Any) -> None:
        super().__init__(cast("socket.socket", Listening(sock)), **more)
        self._sending: dict[int, threading.Lock] = {}
        self._channel_handler_table: dict[int, Callable[..., None]] = {
            **super()._channel_handler_table,  # type: ignore[misc] # it has no other place for this
            MSG_CHANNEL_CLOSE: lambda channel, _message: self._closed_there(channel),
        }

    def sending(self, channel: paramiko.Channel) -> threading.Lock:
        """Return what whoever sends to a channel holds meanwhile."""
        return self._sending.setdefault(channel.chanid, threading.Lock())

    def end(self, channel: Any) -> Callable[[], None]:
        """Close a channel to whoever sends; return what tells the host after all that was sent."""
        with channel.lock:
            messages = channel._close_internal()  # noqa: SLF001 - `close` says so at once

        def tell() -> None:
            with self.sending(channel), contextlib.suppress(*DEAD):
                for message in filter(None, messages):
                    self._send_user_message(message)  # type: ignore[attr-defined]

        return tell

    def _closed_there(self, channel: paramiko.Channel) -> None:
        tell = self.end(channel)
        self._unlink_channel(channel.chanid)  # type: ignore[attr-defined]
        # Who sends may wait for new keys, and those come by this thread.
        if self.sending(channel).locked():
            threading.Thread(target=tell, name="close", daemon=True).start()
        else:
            tell()


class SshProcess:
    """A command behind a channel of its own.

    Args:
        name: The host.
        link: The connection.
        channel: The channel.
        end: Ends the command on the host.
    """

    def __init__(
        self, name: str, link: Link, channel: paramiko.Channel, end: Callable[[], None]
    ) -> None:
        self._name = name
        self._link = link
        self._channel = channel
        self._end_there = end
        self._stopped = False

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input."""
        try:
            with self._link.sending(self._channel):
                self._channel.sendall(data)
        except (EOFError, paramiko.SSHException) as error:
            raise BrokenPipeError(str(error) or "The connection was lost") from error

    def end_input(self) -> None:
        """Close its standard input."""
        try:
            with self._link.sending(self._channel):
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
        """End the command on the host, when it still runs, and close the channel."""
        if not self._stopped and not self._channel.status_event.is_set():
            with contextlib.suppress(*DEAD):
                self._end_there()
        self._stopped = True
        self._link.end(self._channel)()

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
        if self._channel.eof_received or self._stopped:
            return b""
        if self._link.saved_exception is not None or not self._link.is_active():
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
    # What it has to say of a lost link stands in our failures.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    settings = _ssh_config(config_files)
    connection = fabric.Connection(
        name,
        config=fabric.Config(ssh_config=settings, overrides={"load_ssh_configs": False}),
        connect_timeout=CONNECT,
        connect_kwargs={
            "banner_timeout": CONNECT,
            "auth_timeout": CONNECT,
            "channel_timeout": CONNECT,
            "transport_factory": Link,
        },
    )
    opening, numbers = threading.Lock(), itertools.count()

    def start(command: Command) -> Process:
        with opening, _unreachable(name):
            deadline = time.monotonic() + REFUSING
            while True:
                channel = _open(connection, settings)
                # Of this connection alone: what ends with a lost one must not end what a new
                # one runs.
                link = f"{connection.transport.session_id.hex()}.{next(numbers)}"
                try:
                    # Left to itself the shell becomes the command, and when a signal ends that,
                    # SSH sends no exit code: it would look like a lost link.
                    channel.exec_command(f"{LINK}={link} {command.wire()}; exit $?")
                except paramiko.SSHException as error:
                    _refused(name, channel, deadline, error)
                    continue
                end = partial(_end, connection.transport, link)
                return SshProcess(name, connection.transport, channel, end)

    return Host(name, connection.host, start, connection.close, log)


@dataclass(frozen=True)
class Peer:
    """What the SSH configuration says of a host.

    Args:
        user: Who we are there.
        address: Where it is.
        port: Where its sshd listens.
        keys: The private keys that are named for it.
        known: Whether one of its own keys is known here.
    """

    user: str
    address: str
    port: int
    keys: tuple[Path, ...]
    known: bool


def peer(name: str, config_files: tuple[Path, ...]) -> Peer:
    """Return what the SSH configuration says of a host; nothing is sent there."""
    settings = _ssh_config(config_files)
    config = fabric.Config(ssh_config=settings, overrides={"load_ssh_configs": False})
    link = fabric.Connection(name, config=config)
    options = settings.lookup(link.original_host)
    pinned = paramiko.HostKeys()
    for path in _pins(options):
        pinned.load(str(path))
    entry = link.host if link.port == SSH_PORT else f"[{link.host}]:{link.port}"
    keys = tuple(Path(key).expanduser() for key in options.get("identityfile", ()))
    return Peer(link.user, link.host, link.port, keys, pinned.lookup(entry) is not None)


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


def _refused(
    name: str, channel: paramiko.Channel, deadline: float, error: paramiko.SSHException
) -> None:
    """Return when the host has not begun the command and may be asked again.

    Raises:
        SSHException: The link was lost, and nobody knows whether it has.
        Unreachable: The host has refused for too long.
    """
    # paramiko says the same of both; but only what the host closes is answered with an end.
    if not channel.eof_sent:
        raise error
    if time.monotonic() > deadline:
        raise Unreachable(
            "The host would not start a command",
            where=name,
            why="its sshd refuses, as it does when it cannot have another process",
            next_step=f"ssh {name} true; then look for what fills its memory or its process table",
        ) from error
    time.sleep(0.1)  # between two attempts


def _end(transport: paramiko.Transport, link: str) -> None:
    """End what runs by that name on the host, and see it end."""
    channel = transport.open_session(timeout=SOON)
    with contextlib.closing(channel):
        channel.exec_command(script(END, link, stdin=b"", deadline=20).wire())
        channel.status_event.wait(2 * SOON)


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
    threading.Thread(
        target=_keep_asking, args=(connection.transport,), name="keepalive", daemon=True
    ).start()


def _keep_asking(transport: paramiko.Transport) -> None:
    # paramiko's own keepalive wants no answer, and so hears nothing of one that does not come.
    with contextlib.suppress(*DEAD):  # whoever waits for something finds out
        while transport.is_active():
            transport.global_request("keepalive@openssh.com", wait=True)
            time.sleep(KEEPALIVE)


def _pin(client: paramiko.SSHClient, options: paramiko.SSHConfigDict) -> None:
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for path in _pins(options):
        client.load_system_host_keys(str(path))


def _pins(options: paramiko.SSHConfigDict) -> list[Path]:
    """Return the files with the keys of hosts."""
    named = options.get("userknownhostsfile", "~/.ssh/known_hosts")
    # paramiko has taken the quotes off, so one path with blanks looks like several.
    whole = Path(named).expanduser()
    listed = [whole] if whole.is_file() else [Path(word).expanduser() for word in named.split()]
    return [path for path in listed if path.is_file()]


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
