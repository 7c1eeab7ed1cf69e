"""Commands over a real SSH connection, and every way it goes wrong."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import host as hosts
from deploy.command import command, script
from deploy.host import Host, local_host, transfer
from deploy.host.process import CommandFailed
from deploy.host.ssh import SshProcess, ssh_host
from deploy.log import RunLog
from deploy.outcome import Unreachable
from deploy.redact import Redactor
from tests.support import sshd
from tests.support.agent import eventually
from tests.support.ports import free_port
from tests.support.sshd import Sshd

ALIVE = command("pgrep", "-f", "echo 472[3]")
ALL_BYTES = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.running(tmp_path_factory.mktemp("a folder")) as found:
        yield found


@pytest.fixture(scope="module")
def far(server: Sshd) -> Iterator[Host]:
    found = reach(server.config)
    yield found
    found.close()


def reach(config: Path, name: str = "target") -> Host:
    return ssh_host(name, (config,), RunLog(Redactor(), io.StringIO()))


def test_a_command_runs_and_says_how_it_ended(far: Host) -> None:
    result = far.run(script('echo out; echo err >&2; exit "$1"', "7"))
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")
    assert far.ask(command("hostname"))
    with pytest.raises(CommandFailed, match="failed with exit code 7"):
        far.ask(script("exit 7"))


def test_a_missing_program_is_a_result(far: Host) -> None:
    assert far.run(command("no-such-program")).code == 127


@pytest.mark.parametrize("start", ["", "trap '' TERM; "])
def test_a_command_that_is_given_up_ends_on_the_host(far: Host, start: str) -> None:
    process = far.start(script(f"{start}echo begun; while sleep 0.1; do :; done; echo 4723"))
    assert process.read() == b"begun\n"
    assert far.run(ALIVE).ok
    process.stop()
    assert not far.run(ALIVE).ok


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_every_word_arrives_as_it_was_sent(far: Host, words: list[str]) -> None:
    out = far.ask(script('for word in "$@"; do printf "%s\\0" "$word" | od -An -tx1; done', *words))
    found = bytes.fromhex(out).decode().split("\0")[:-1]
    assert found == words


def test_input_arrives_byte_for_byte(far: Host) -> None:
    out = far.ask(command("sha256sum", stdin=ALL_BYTES, deadline=60))
    assert out.split()[0] == hashlib.sha256(ALL_BYTES).hexdigest()


def test_without_input_there_is_an_end_of_file(far: Host) -> None:
    assert far.ask(command("cat", deadline=5)) == ""


def test_output_that_is_no_text_and_very_long_lines(far: Host) -> None:
    assert far.ask(script("printf 'a\\377b'")) == "a\ufffdb"
    out = far.ask(script("head -c 5000000 /dev/zero | tr '\\0' x"))
    assert len(out) == 5_000_000


def test_lines_are_heard_as_they_come(far: Host) -> None:
    heard: list[str] = []
    far.run(script("echo one; printf t; sleep 0.2; echo wo; printf three"), heard.append)
    assert heard == ["one", "two", "three"]


def test_a_command_is_ended_where_it_runs(far: Host, server: Sshd) -> None:
    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        far.ask(command("sleep", "4711", deadline=1))
    eventually(lambda: "4711" not in server.inside("ps", "-eo", "args"))


def test_many_commands_at_once_share_a_connection(far: Host) -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = far.ask(script('sleep 0.2; echo "$1"', str(number))).strip()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(8)}


def test_an_unknown_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    host = reach(server.write(UserKnownHostsFile=str(tmp_path / "empty")))
    with pytest.raises(Unreachable, match="key is unknown") as caught:
        host.run(command("touch", "/tmp/was-here"))
    assert caught.value.code == 8
    assert server.inside("sh", "-c", "ls /tmp") == ""


def test_a_changed_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    other = sshd.make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with pytest.raises(Unreachable, match="key has changed"):
        reach(server.write(UserKnownHostsFile=str(known))).run(command("true"))


def test_a_key_that_the_host_does_not_know_is_refused(server: Sshd, tmp_path: Path) -> None:
    key = sshd.make_key(tmp_path / "mine")
    with pytest.raises(Unreachable) as caught:
        reach(server.write(IdentityFile=str(key))).run(command("true"))
    assert "ssh target true" in caught.value.next_step


@pytest.mark.parametrize("name", ["127.0.0.1", "no-such-host.invalid"])
def test_a_host_that_is_not_there(server: Sshd, name: str) -> None:
    config = server.write(HostName=name, Port=str(free_port()))
    with pytest.raises(Unreachable, match="cannot be reached"):
        reach(config).run(command("true"))


def test_a_port_that_speaks_no_ssh(server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as link:
                link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable):
            reach(server.write(Port=str(listener.getsockname()[1]))).run(command("true"))
        thread.join()


def test_a_connection_that_is_cut_leaves_the_outcome_unknown(server: Sshd) -> None:
    host = reach(server.config)
    host.run(command("true"))

    def cut_later() -> None:
        eventually(lambda: "sleep 4713" in server.inside("ps", "-eo", "args"))
        cut(server)

    cutter = threading.Thread(target=cut_later)
    cutter.start()
    with pytest.raises(Unreachable, match="unknown"):
        host.run(command("sleep", "4713", deadline=30))
    cutter.join()
    assert host.ask(command("echo", "again")) == "again\n"
    host.close()


def test_files_travel_both_ways_whole(far: Host, tmp_path: Path) -> None:
    here = local_host(far.log)
    data = ALL_BYTES * 4
    (tmp_path / "data").write_bytes(data)
    there, back = script('cat >"$1"', "/tmp/data", stdin=b""), str(tmp_path / "back")
    assert transfer(here, command("cat", str(tmp_path / "data")), far, there) == len(data)
    home = script('cat >"$1"', back, stdin=b"")
    assert transfer(far, command("cat", "/tmp/data"), here, home) == len(data)
    assert Path(back).read_bytes() == data


def test_a_transfer_that_fails_at_either_end_says_which(far: Host) -> None:
    here = local_host(far.log)
    endless = command("cat", "/dev/zero", deadline=30)
    with pytest.raises(CommandFailed) as caught:
        transfer(here, endless, far, script("head -c 10 >/dev/null; exit 3", stdin=b""))
    assert caught.value.where == "target"
    with pytest.raises(CommandFailed, match="stopped listening"):
        transfer(here, endless, far, script("head -c 10 >/dev/null", stdin=b""))
    with pytest.raises(CommandFailed, match="cat"):
        transfer(here, command("cat", "/no/such/file"), far, command("cat", stdin=b""))


def test_a_file_is_replaced_at_once_and_kept_private(far: Host) -> None:
    path = "/root/a file"
    assert hosts.read(far, path) == ""
    hosts.replace(far, path, b"one\n")
    hosts.append(far, path, b"two\n")
    assert hosts.read(far, path) == "one\ntwo\n"
    assert far.ask(command("stat", "-c", "%a", path)).strip() == "600"
    hosts.replace(far, path, ALL_BYTES, "0644")
    assert far.ask(command("sha256sum", path)).split()[0] == hashlib.sha256(ALL_BYTES).hexdigest()
    assert far.ask(command("stat", "-c", "%a", path)).strip() == "644"
    with pytest.raises(CommandFailed):
        hosts.replace(far, "/proc/nothing", b"x")
    assert ".part" not in far.ask(command("ls", "-A", "/root"))


def test_what_is_secret_is_not_in_the_log(server: Sshd) -> None:
    log = RunLog(Redactor().with_values(("hunter22",)), io.StringIO())
    host = ssh_host("target", (server.config,), log)
    host.run(script("cat; echo hunter22", stdin=b"hunter22"))
    host.close()
    told = log.take().decode()
    assert "exit 0" in told
    assert "hunter22" not in told


@pytest.mark.parametrize("stdin", [None, b""])
def test_a_signal_is_an_exit_code_and_no_lost_link(far: Host, stdin: bytes | None) -> None:
    for name, code in (("KILL", 137), ("SEGV", 139), ("TERM", 143)):
        assert far.run(script('kill -s "$1" $$', name, stdin=stdin)).code == code


def test_half_a_file_is_never_put_in_place(far: Host, server: Sshd) -> None:
    path = "/root/settings"
    hosts.replace(far, path, b"old\n")
    for ask in (
        script(hosts.files.REPLACE, path, str(len(ALL_BYTES)), "0600", stdin=b""),
        script(hosts.files.APPEND, path, str(len(ALL_BYTES)), stdin=b""),
    ):
        host = reach(server.config)
        process = host.start(ask)
        process.write(ALL_BYTES[: len(ALL_BYTES) // 2])
        eventually(lambda: ".part" in server.inside("ls", "-A", "/root"))
        cut(server)
        eventually(lambda: ".part" not in server.inside("ls", "-A", "/root"))
        with pytest.raises(Unreachable):
            process.wait(10)
        process.stop()
        host.close()
        assert hosts.read(far, path) == "old\n"


def test_an_end_of_input_for_a_command_that_ends_meanwhile_costs_no_link(server: Sshd) -> None:
    host = reach(server.config)
    host.run(command("true"))
    for _ in range(12):  # who comes first is chance
        process = host.start(command("sleep", "0.2"))
        assert isinstance(process, SshProcess)
        link = process._channel.get_transport()
        link.clear_to_send.clear()  # as while new keys are exchanged
        sender = threading.Thread(target=process.end_input)
        sender.start()
        eventually(lambda it=process: it._channel.closed)  # type: ignore[misc]
        link.clear_to_send.set()
        sender.join(10)
        assert process.wait(10) == 0
        assert host.run(command("echo", "here")).out == "here\n"
        assert link.is_active()
    host.close()


def test_a_link_that_is_lost_before_the_last_word_is_not_the_end(server: Sshd) -> None:
    host = reach(server.config)
    lost = threading.Event()
    # More than is sent to somebody who does not listen, yet little enough for it to end.
    text = "echo go; head -c 2140000 /dev/zero | tr '\\0' x; touch /run/written"

    def cut_later() -> None:
        eventually(lambda: "written" in server.inside("ls", "/run"))
        eventually(lambda: "written" not in server.inside("ps", "-eo", "args"))
        cut(server)
        lost.set()

    def listen(_line: str) -> None:
        lost.wait(20)

    cutter = threading.Thread(target=cut_later)
    cutter.start()
    with pytest.raises(Unreachable, match="unknown"):
        host.run(script(text), listen)
    cutter.join()
    host.close()


def test_a_link_that_died_unnoticed_is_made_anew(server: Sshd) -> None:
    host = reach(server.config)
    for number in range(5):
        assert host.ask(command("echo", str(number))) == f"{number}\n"
        cut(server)
    host.close()


def test_a_link_that_a_router_has_forgotten_is_made_anew(server: Sshd) -> None:
    with sshd.relayed(server.port) as relay:
        known = server.folder / "known-behind-relay"
        line = (server.folder / "known_hosts").read_text()
        known.write_text(line.replace(str(server.port), str(relay.port)))
        host = reach(server.write(Port=str(relay.port), UserKnownHostsFile=str(known)))
        for number in range(3):
            assert host.ask(command("echo", str(number))) == f"{number}\n"
            relay.forget()
        host.close()


def test_a_transfer_without_a_source_starts_no_sink(far: Host, tmp_path: Path) -> None:
    nowhere = ssh_host(f"127.0.0.1:{free_port()}", (), far.log)
    here = local_host(far.log)
    for host, path in ((here, str(tmp_path / "sink")), (far, "/root/sink")):
        with pytest.raises(Unreachable):
            transfer(nowhere, command("true"), host, script('cat >"$1"', path, stdin=b""))
        assert host.run(command("test", "-e", path)).code == 1


def test_a_host_behind_another_is_pinned_too(server: Sshd, tmp_path: Path) -> None:
    keys = (server.folder / "known_hosts").read_text()
    known = tmp_path / "known"
    both = keys + keys.replace(f"[127.0.0.1]:{server.port}", "inner")
    config = tmp_path / "config"
    server.inside("sh", "-c", "grep -q inner /etc/hosts || echo 127.0.0.1 inner >>/etc/hosts")
    inner = f"""
Host inner
  HostName inner
  User root
  IdentityFile "{server.folder / "key"}"
  UserKnownHostsFile "{known}"
  ProxyJump target
"""
    config.write_text(server.write(UserKnownHostsFile=str(known)).read_text() + inner)
    known.write_text(both)
    host = reach(config, "inner")
    assert host.ask(command("echo", "hello")) == "hello\n"
    host.close()
    for wrong in (keys, both.replace(keys, "")):
        known.write_text(wrong)
        with pytest.raises(Unreachable, match="unknown"):
            reach(config, "inner").run(command("true"))


def cut(server: Sshd) -> None:
    """End every connection of the server, as a cut cable would."""
    server.inside("sh", "-c", "pkill -x sshd-session || true")


def test_a_host_that_can_start_nothing_for_a_moment_is_asked_again(server: Sshd) -> None:
    host = reach(server.config)
    host.run(command("true"))
    refusals = said_in_vain(server)
    sshd.docker("update", "--pids-limit", "1", server.name)

    def relent() -> None:
        eventually(lambda: said_in_vain(server) > refusals)
        sshd.docker("update", "--pids-limit", "-1", server.name)

    relenting = threading.Thread(target=relent)
    relenting.start()
    try:
        assert host.ask(command("echo", "there")) == "there\n"
    finally:
        relenting.join()
        host.close()


def test_a_host_that_can_start_nothing_says_so(server: Sshd) -> None:
    host = reach(server.config)
    host.run(command("true"))
    sshd.docker("update", "--pids-limit", "1", server.name)
    try:
        with pytest.raises(Unreachable, match="would not start a command"):
            host.run(command("true"))
    finally:
        sshd.docker("update", "--pids-limit", "-1", server.name)
        host.close()


def said_in_vain(server: Sshd) -> int:
    words = ("docker", "logs", server.name)
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return said.stderr.count("fork")
