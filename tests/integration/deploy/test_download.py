"""Backups brought home: cut off anywhere, garbled, and over a link that is lost."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from deploy import backups
from deploy.command import Command
from deploy.host import Host, Process
from deploy.host.ssh import ssh_host
from deploy.log import RunLog
from deploy.outcome import DataFailed, Unreachable
from deploy.postgres import backup, progress
from deploy.postgres.backup import Backup
from deploy.postgres.download import download
from deploy.redact import Redactor
from deploy.session import Session
from tests.support import sshd
from tests.support.agent import eventually
from tests.support.dumps import quiet
from tests.support.sshd import Sshd

# More than a link has under way when it is cut.
DATA = random.Random(4711).randbytes(12_000_000)  # noqa: S311 - the same each time
NAME = "shop_2026-01-02_03-04-05.sql.gz"
ROOT = Path(__file__).resolve().parents[3]
DOWNLOAD = """
import signal
import sys
from pathlib import Path
from deploy.host import local_host
from deploy.log import RunLog
from deploy.postgres.backup import Backup
from deploy.postgres.download import download
from deploy.redact import Redactor
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs us may ignore it
path, size, sha, home = sys.argv[1:]
item = Backup(Path(path).name, path, "", int(size), sha, 0)
download(local_host(RunLog(Redactor())), item, Path(home), print)
"""


def described(path: str, data: bytes) -> Backup:
    return Backup(NAME, path, "", len(data), hashlib.sha256(data).hexdigest(), 0)


@pytest.fixture
def there(tmp_path: Path) -> Backup:
    """A backup that lies on this machine as on a host."""
    path = tmp_path / "host" / NAME
    path.parent.mkdir()
    path.write_bytes(DATA)
    return described(str(path), DATA)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def part_of(item: Backup, home: Path) -> Path:
    return home / f".{NAME}.{item.sha256[:12]}.part"


def put_part(item: Backup, home: Path, data: bytes) -> None:
    home.mkdir(mode=0o700)
    part_of(item, home).touch(0o600)
    part_of(item, home).write_bytes(data)


def watched(host: Host, passed: Callable[[int], None]) -> Host:
    """Return a host that tells how many bytes it sends, piece by piece."""

    def start(command: Command) -> Process:
        process = host.start(command)
        read = process.read

        def reading() -> bytes:
            chunk = read()
            passed(len(chunk))
            return chunk

        process.read = reading  # type: ignore[method-assign]
        return process

    return replace(host, start=start)


def counted(host: Host, sent: list[int]) -> Host:
    return watched(host, sent.append)


def names(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


@pytest.mark.parametrize("size", [1, 4711, len(DATA) - 1, len(DATA)])
def test_what_has_arrived_is_not_fetched_again(
    here: Host, there: Backup, home: Path, size: int
) -> None:
    put_part(there, home, DATA[:size])
    sent: list[int] = []
    copy = download(counted(here, sent), there, home, quiet)
    assert copy.read_bytes() == DATA
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sum(sent) == len(DATA) - size
    assert names(home) == [NAME]


@pytest.mark.parametrize("part", [b"x" * 4711, DATA[:-1] + b"x", DATA + b"x"])
def test_a_garbled_part_is_begun_anew(here: Host, there: Backup, home: Path, part: bytes) -> None:
    put_part(there, home, part)
    assert download(here, there, home, quiet).read_bytes() == DATA
    assert names(home) == [NAME]


def test_a_part_of_another_backup_is_not_added_to(here: Host, there: Backup, home: Path) -> None:
    other = replace(there, sha256="0" * 64)
    put_part(other, home, b"theirs")
    sent: list[int] = []
    assert download(counted(here, sent), there, home, quiet).read_bytes() == DATA
    assert sum(sent) == len(DATA)
    assert part_of(other, home).read_bytes() == b"theirs"


def test_one_that_is_here_already_is_not_fetched(here: Host, there: Backup, home: Path) -> None:
    copy = download(here, there, home, quiet)
    before, sent = copy.stat().st_mtime_ns, list[int]()
    said: list[str] = []
    assert download(counted(here, sent), there, home, said.append) == copy
    assert (copy.stat().st_mtime_ns, sent) == (before, [])
    assert said == [f"  {copy} is here already"]
    copy.write_bytes(DATA[:-1])
    assert download(here, there, home, quiet).read_bytes() == DATA
    assert names(home) == [NAME]


@pytest.mark.parametrize("part", [b"", DATA[:4711]])
def test_what_is_not_the_backup_is_removed(
    here: Host, there: Backup, home: Path, part: bytes
) -> None:
    Path(there.path).write_bytes(DATA[:-1] + b"x")
    put_part(there, home, part)
    sent: list[int] = []
    with pytest.raises(DataFailed, match="differs") as caught:
        download(counted(here, sent), there, home, quiet)
    assert caught.value.code == 9
    assert sum(sent) == len(DATA) * (2 if part else 1) - len(part)
    assert names(home) == []


def test_two_do_not_add_to_the_same_part(here: Host, there: Backup, home: Path) -> None:
    put_part(there, home, DATA[:4711])
    with part_of(there, home).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(DataFailed, match="Somebody else"):
            download(here, there, home, quiet)
    assert part_of(there, home).read_bytes() == DATA[:4711]
    assert download(here, there, home, quiet).read_bytes() == DATA


def test_a_backup_that_is_gone_leaves_what_has_arrived(
    here: Host, there: Backup, home: Path
) -> None:
    put_part(there, home, DATA[:4711])
    Path(there.path).unlink()
    with pytest.raises(DataFailed, match="could not be copied here") as caught:
        download(here, there, home, quiet)
    assert "tail" in caught.value.why
    assert part_of(there, home).read_bytes() == DATA[:4711]
    assert NAME not in names(home)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_interrupted_keeps_what_has_arrived(
    here: Host, there: Backup, home: Path, number: signal.Signals
) -> None:
    path = Path(there.path)
    path.unlink()
    os.mkfifo(path)
    endless = os.open(path, os.O_RDWR)  # nobody reads its end
    os.write(endless, DATA[:50_000])
    part = part_of(there, home)
    words = (there.path, str(there.bytes), there.sha256, str(home))
    with subprocess.Popen(
        (sys.executable, "-c", DOWNLOAD, *words),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        eventually(lambda: part.exists() and part.stat().st_size > 0)
        child.send_signal(number)
        said = child.communicate(timeout=30)[0]
    assert (f"to go on: inv backup.download {NAME}" in said) == (number == signal.SIGINT)
    assert names(home) == [part.name]
    os.close(endless)
    path.unlink()
    path.write_bytes(DATA)
    sent: list[int] = []
    assert download(counted(here, sent), there, home, quiet).read_bytes() == DATA
    assert sum(sent) < len(DATA)


def test_a_long_one_says_how_far_it_is(
    here: Host, there: Backup, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    put_part(there, home, DATA[:4_000_000])
    said: list[str] = []
    download(here, there, home, said.append)
    assert said[0] == "  4.0 of 12.0 MB are here: going on"
    assert re.fullmatch(r"  8 MB of the rest, [\d,]+ MB/s", said[-1])


def test_the_newest_good_one_is_brought_home_unless_another_is_named(
    here: Host, there: Backup, tmp_path: Path
) -> None:
    folder = str(Path(there.path).parent)
    bad = replace(
        there, path=f"{folder}/bad.sql.gz", state="damaged", at="2026-01-03T00:00:00+00:00"
    )
    backup.write(here, replace(there, at="2026-01-02T00:00:00+00:00"))
    backup.write(here, bad)
    Path(bad.path).write_bytes(DATA)
    session = cast(
        "Session",
        SimpleNamespace(
            target=here, folder=tmp_path, layout=SimpleNamespace(backups=folder), log=here.log
        ),
    )
    found = backups.download(session, "")
    assert Path(found["downloaded"]).read_bytes() == DATA
    assert Path(found["downloaded"]) == tmp_path / "backups" / NAME
    assert found["sha256"] == there.sha256
    for name in ("bad.sql.gz", "none.sql.gz"):
        with pytest.raises(DataFailed, match=f"no good backup {name}"):
            backups.download(session, name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def afar(server: Sshd, tmp_path: Path, there: Backup) -> Backup:
    """The backup on a host behind SSH."""
    sshd.docker("cp", there.path, f"{server.name}:/root/{NAME}")
    return replace(there, path=f"/root/{NAME}")


def cut_at(host: Host, size: int, cut: Callable[[], None]) -> Host:
    """Return a host that is cut off once, when it has sent so many bytes."""
    sent = 0

    def passed(count: int) -> None:
        nonlocal sent
        before, sent = sent, sent + count
        if before < size <= sent:
            cut()

    return watched(host, passed)


def over_ssh(config: Path) -> Host:
    return ssh_host("target", (config,), RunLog(Redactor(), io.StringIO()))


def test_a_link_that_is_cut_is_made_anew_and_the_rest_fetched(
    server: Sshd, afar: Backup, home: Path
) -> None:
    host, said, sent = over_ssh(server.config), list[str](), list[int]()
    cut = cut_at(counted(host, sent), len(DATA) // 3, lambda: end_links(server))
    copy = download(cut, afar, home, said.append)
    host.close()
    assert copy.read_bytes() == DATA
    assert [line for line in said if "going on" in line]
    assert names(home) == [NAME]


def test_a_host_that_stays_away_leaves_what_has_arrived(
    server: Sshd, afar: Backup, home: Path
) -> None:
    host, keys = over_ssh(server.config), "/root/.ssh/authorized_keys"

    def cut() -> None:
        server.inside("mv", keys, f"{keys}.away")  # so that there is no way back
        end_links(server)

    with pytest.raises(Unreachable, match="what arrived of the backup is kept") as caught:
        download(cut_at(host, len(DATA) // 3, cut), afar, home, quiet)
    assert caught.value.next_step == f"inv backup.download {NAME} goes on from there"
    part = part_of(afar, home)
    assert names(home) == [part.name]
    arrived = part.read_bytes()
    assert DATA.startswith(arrived)
    assert len(arrived) > len(DATA) // 4
    sent: list[int] = []
    server.inside("mv", f"{keys}.away", keys)
    assert download(counted(host, sent), afar, home, quiet).read_bytes() == DATA
    host.close()
    assert sum(sent) == len(DATA) - len(arrived)
    assert names(home) == [NAME]


def end_links(server: Sshd) -> None:
    server.inside("sh", "-c", "pkill -x sshd-session || true")
