"""Copies of backups on another host, over a real SSH connection that the host itself opens."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.host import Host
from deploy.host.process import CommandFailed
from deploy.postgres import backup, offsite
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup
from deploy.run import Run
from deploy.steps import data, make
from tests.integration.deploy.test_retention import release, run_of
from tests.support import sshd
from tests.support.sshd import Sshd

NAME = "shop_2026-01-02_03-04-05.sql.gz"
DATA = bytes(range(256)) * 20_000
# One that keeps its remotes in a folder, and fails as the real one when two files differ.
RCLONE = """#!/bin/sh
set -eu
home=$(dirname "$0")/../remotes
printf '%s\\n' "$*" >>"$home/told"
case $1 in
  copyto) to=$home/${4%%:*}/${4#*:}; mkdir -p "$(dirname "$to")"; cp "$3" "$to" ;;
  check) cmp -s "$6$4" "$home/${7%%:*}/${7#*:}$4" || { echo "1 differences found" >&2; exit 1; } ;;
esac
"""


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a program first on the host's path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, text: str) -> None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def ssh(vault: Sshd, program: Callable[[str, str], None]) -> Sshd:
    """The real ssh, which knows the server as `target`, as its user's configuration would."""
    program("ssh", f'#!/bin/sh\nexec /usr/bin/ssh -F "{vault.config}" "$@"\n')
    vault.inside("sh", "-c", "rm -rf /root/backups")
    return vault


@pytest.fixture
def item(here: Host, tmp_path: Path) -> Backup:
    path = tmp_path / "backups" / NAME
    path.parent.mkdir()
    path.write_bytes(DATA)
    digest = hashlib.sha256(DATA).hexdigest()
    found = Backup(NAME, str(path), "2026-01-02T03:04:05+00:00", len(DATA), digest, 7)
    backup.write(here, found)
    return found


def arrived(server: Sshd, folder: str) -> list[str]:
    return server.inside("sh", "-c", f"ls -A {folder} 2>/dev/null || true").split()


def test_a_copy_over_ssh_is_whole_private_and_described(
    here: Host, ssh: Sshd, item: Backup, tmp_path: Path
) -> None:
    offsite.copy(here, item, "ssh:target:backups/of.shop", 30)
    assert arrived(ssh, "/root/backups/of.shop") == [NAME, f"{NAME}.json"]
    for name in (NAME, f"{NAME}.json"):
        there = f"/root/backups/of.shop/{name}"
        sshd.docker("cp", f"{ssh.name}:{there}", str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == Path(item.path).with_name(name).read_bytes()
        assert ssh.inside("stat", "-c", "%a", there) == "600"
    offsite.copy(here, item, "ssh:root@target:/root/backups/of.shop", 30)  # it may come again
    assert arrived(ssh, "/root/backups/of.shop") == [NAME, f"{NAME}.json"]


@pytest.mark.parametrize(
    "spoil",
    [
        ("head -c 4711", "4711 of 5120000 bytes arrived"),
        ("tr a b", "what arrived has another check sum"),
    ],
)
def test_what_does_not_arrive_as_it_is_does_not_stay(
    here: Host,
    ssh: Sshd,
    program: Callable[[str, str], None],
    item: Backup,
    spoil: tuple[str, str],
) -> None:
    how, says = spoil
    program("ssh", f'#!/bin/sh\n{how} | /usr/bin/ssh -F "{ssh.config}" "$@"\n')
    with pytest.raises(CommandFailed) as caught:
        offsite.copy(here, item, "ssh:target:backups", 30)
    assert says in caught.value.why
    assert arrived(ssh, "/root/backups") == []


def test_a_host_that_nobody_knows_is_asked_nothing(here: Host, item: Backup) -> None:
    with pytest.raises(CommandFailed) as caught:
        offsite.copy(here, item, "ssh:no-such-host.invalid:backups", 30)
    assert "no-such-host.invalid" in caught.value.why


def test_rclone_copies_and_compares(
    here: Host, program: Callable[[str, str], None], item: Backup, tmp_path: Path
) -> None:
    program("rclone", RCLONE)
    remotes = tmp_path / "remotes"
    remotes.mkdir()
    offsite.copy(here, item, "rclone:vault:shop/backups/", 30)
    folder = remotes / "vault/shop/backups"
    assert (folder / NAME).read_bytes() == DATA
    assert (folder / f"{NAME}.json").read_bytes() == backup.manifest(item)
    assert (remotes / "told").read_text().splitlines()[:2] == [
        f"copyto -- {item.path} vault:shop/backups/{NAME}",
        f"check --one-way --include /{NAME} -- {tmp_path}/backups vault:shop/backups",
    ]
    program("rclone", RCLONE.replace("; cp ", "; head -c 9 <").replace('"$3" "$to"', '"$3" >"$to"'))
    with pytest.raises(CommandFailed, match="exit code 1") as caught:
        offsite.copy(here, item, "rclone:vault:shop", 30)
    assert "differences" in caught.value.why


def copying(filled: Database, here: Host, tmp_path: Path, to: str) -> Run:
    """Return a run with a database, whose backups are copied."""
    run = run_of("backup", here, tmp_path / "root", filled.container)
    database = run.settings.database.model_copy(update={"copy_to": to})
    run.settings = run.settings.model_copy(update={"database": database})
    return run


def test_a_backup_is_copied_and_its_manifest_says_where(
    filled: Database, here: Host, ssh: Sshd, tmp_path: Path
) -> None:
    run = copying(filled, here, tmp_path, "ssh:target:backups")
    done = data.back_up(run)
    assert (done.state, run.warnings) == ("ok", [])
    (taken,) = backup.listing(here, run.layout.backups)
    assert done.note.endswith("; copied to ssh:target:backups")
    assert (taken.state, taken.copied) == ("good", "ssh:target:backups")
    assert run.backup is not None
    assert run.backup.copied == taken.copied
    assert run.facts["backup"]["copied"] == "ssh:target:backups"
    assert arrived(ssh, "/root/backups") == [taken.name, f"{taken.name}.json"]
    manifest = json.loads(ssh.inside("cat", f"/root/backups/{taken.name}.json"))
    assert manifest["sha256"] == taken.sha256


def test_a_copy_that_fails_is_a_warning_and_the_backup_is_good(
    filled: Database, here: Host, ssh: Sshd, tmp_path: Path
) -> None:
    run = copying(filled, here, tmp_path, "ssh:target:/proc/nowhere")
    run.release = release("r1")
    done = make.back_up(run)
    assert done.state == "warned"
    assert done.note.endswith("; not copied to ssh:target:/proc/nowhere")
    (warning,) = run.warnings
    assert warning.startswith("the backup is good, but was not copied to ssh:target:/proc/nowhere")
    assert "mkdir" in warning
    (taken,) = backup.listing(here, run.layout.backups)
    assert (taken.state, taken.copied) == ("good", "")
    assert run.facts["backup"]["state"] == "good"
    assert run.release.backup == taken.name
