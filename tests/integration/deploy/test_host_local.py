"""Commands on this machine: the same promises as over SSH, kept by a child process."""

from __future__ import annotations

import hashlib
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import host as hosts
from deploy.command import Command, command, script
from deploy.host import Host, local_host, transfer
from deploy.host.process import CommandFailed
from deploy.log import RunLog
from deploy.outcome import Invalid
from deploy.redact import Redactor
from tests.support.agent import eventually

ALL_BYTES = bytes(range(256)) * 20_000


def words_of_all() -> str:
    """Return the command lines of every process."""
    return "\n".join(
        path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    )


@pytest.fixture
def naps() -> list[str]:
    """Return durations that nobody else on this machine sleeps for."""
    return [str(10**6 + uuid.uuid4().int % 10**7) for _ in range(2)]


def gone(nap: str) -> bool:
    try:
        return f"sleep {nap}" not in words_of_all()
    except (OSError, ProcessLookupError):  # it ended while we looked
        return False


def test_a_command_runs_and_says_how_it_ended(here: Host) -> None:
    result = here.run(script('echo out; echo err >&2; exit "$1"', "7"))
    assert (result.code, result.out, result.err, result.ok) == (7, "out\n", "err\n", False)
    with pytest.raises(CommandFailed, match="failed with exit code 7"):
        here.ask(script("exit 7"))


def test_a_missing_program_is_a_result_that_names_it(here: Host) -> None:
    result = here.run(command("no-such-program"))
    assert result.code == 127
    assert "no-such-program" in result.err


@pytest.mark.parametrize("word", ["a\0b", "x" * 3_000_000])
def test_what_no_program_can_be_given_is_invalid(here: Host, word: str) -> None:
    with pytest.raises(Invalid, match="could not be started") as caught:
        here.run(command("echo", word))
    assert caught.value.why


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_every_word_arrives_as_it_was_sent(words: list[str]) -> None:
    here = local_host(RunLog(Redactor()))
    out = here.ask(command("printf", "%s\\0", "first", *words))
    assert out.split("\0")[1:-1] == words


def test_input_arrives_byte_for_byte(here: Host) -> None:
    out = here.ask(command("sha256sum", stdin=ALL_BYTES))
    assert out.split()[0] == hashlib.sha256(ALL_BYTES).hexdigest()


def test_without_input_there_is_an_end_of_file(here: Host) -> None:
    assert here.ask(command("cat", deadline=5)) == ""
    assert here.ask(command("cat", stdin=b"", deadline=5)) == ""


def test_input_that_nobody_reads_holds_nobody_up(here: Host, naps: list[str]) -> None:
    assert here.run(command("true", stdin=ALL_BYTES)).code == 0
    # A grandchild that keeps the input open, and never reads it, outlives the command.
    text = 'exec 3<&0; sleep "$1" <&3 >/dev/null 2>&1 & echo $!'
    held = in_time(here, script(text, naps[0], stdin=ALL_BYTES))
    here.ask(command("kill", held.strip()))
    eventually(lambda: gone(naps[0]))


def in_time(host: Host, wanted: Command) -> str:
    """Run a command that may hang, without hanging with it."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(host.ask(wanted)), daemon=True)
    thread.start()
    thread.join(20)
    assert said, "it hangs"
    return said[0]


def test_output_that_is_no_text_and_a_very_long_line(here: Host) -> None:
    assert here.ask(script("printf 'a\\377b'")) == "a\ufffdb"
    assert len(here.ask(script("head -c 5000000 /dev/zero | tr '\\0' x"))) == 5_000_000


def test_a_slow_listener_loses_nothing(here: Host) -> None:
    heard: list[str] = []
    pause = threading.Event()

    def listen(line: str) -> None:
        if not heard:
            pause.wait(2.5)  # longer than an end is waited for in silence
        heard.append(line)

    result = here.run(script("echo 0; sleep 0.2; seq 5000"), listen)
    assert heard == ["0", *map(str, range(1, 5001))]
    assert result.out.splitlines() == heard


def test_the_deadline_ends_the_whole_family(here: Host, naps: list[str]) -> None:
    text = 'exec >/dev/null 2>&1; sleep "$1" & (trap "" TERM; exec sleep "$2") & wait'
    result = here.run(script(text, *naps, deadline=1))
    assert result.code == 124
    for nap in naps:
        eventually(lambda nap=nap: gone(nap))  # type: ignore[misc]
    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        here.ask(command("sleep", naps[0], deadline=1))


def test_an_exception_while_it_runs_ends_the_whole_family(here: Host, naps: list[str]) -> None:
    process = here.start(script('sleep "$1" & (trap "" TERM; exec sleep "$2") & wait', *naps))
    eventually(lambda: not any(gone(nap) for nap in naps))
    process.stop()
    for nap in naps:
        eventually(lambda nap=nap: gone(nap))  # type: ignore[misc]


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("SEGV", 139), ("TERM", 143)])
def test_a_signal_is_an_exit_code(here: Host, name: str, code: int) -> None:
    assert here.run(script('kill -s "$1" $$', name)).code == code
    with pytest.raises(CommandFailed, match=f"failed with exit code {code}"):
        here.ask(script('kill -s "$1" $$', name))


def test_a_transfer_arrives_whole(here: Host, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "a copy"
    data.write_bytes(ALL_BYTES * 4)
    into = script('cat >"$1"', str(copy), stdin=b"")
    assert transfer(here, command("cat", str(data)), here, into) == len(ALL_BYTES) * 4
    assert copy.read_bytes() == data.read_bytes()


@pytest.mark.parametrize(
    ("out", "text", "message"),
    [
        ("cat /dev/zero", "head -c 10 >/dev/null; echo full >&2; exit 3", "exit code 3"),
        ("cat /dev/zero", "head -c 10 >/dev/null", "stopped listening"),
        ("echo some; exit 4", "cat >/dev/null", "exit code 4"),
    ],
)
def test_a_transfer_that_fails_says_how(here: Host, out: str, text: str, message: str) -> None:
    with pytest.raises(CommandFailed, match=message):
        transfer(here, script(out, deadline=30), here, script(text, stdin=b"", deadline=30))


def test_an_image_that_cannot_be_had_is_said_with_what_to_do(here: Host) -> None:
    with pytest.raises(CommandFailed, match="local cannot get an image") as caught:
        here.ask(command("docker", "pull", "registry.invalid/nobody:1"))
    assert "registry.invalid" in caught.value.why
    assert "docker pull IMAGE there" in caught.value.next_step


def test_files_are_replaced_appended_and_read(here: Host, tmp_path: Path) -> None:
    path = tmp_path / "a 'file'"
    hosts.append(here, str(path), b"one\n")
    assert path.stat().st_mode & 0o777 == 0o600
    hosts.append(here, str(path), ALL_BYTES)
    hosts.append(here, str(path), b"")
    assert path.read_bytes() == b"one\n" + ALL_BYTES
    hosts.replace(here, str(path), b"two\n", "0644")
    assert hosts.read(here, str(path)) == "two\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_reader_sees_the_old_file_or_the_new_one(here: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [letter * 1_000_000 for letter in (b"a", b"b")]
    path.write_bytes(contents[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for turn in range(10):
            hosts.replace(here, str(path), contents[turn % 2])
    finally:
        done.set()
        reader.join()
    assert seen <= set(contents)


def test_what_cannot_be_put_in_place_leaves_nothing(here: Host, tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(CommandFailed):
        hosts.replace(here, str(tmp_path / "folder"), b"x")
    with pytest.raises(CommandFailed):
        hosts.append(here, str(tmp_path / "folder"), b"x")
    with pytest.raises(CommandFailed):
        hosts.replace(here, str(tmp_path / "nowhere" / "file"), b"x")
    assert [item.name for item in tmp_path.rglob("*")] == ["folder", "inside"]
