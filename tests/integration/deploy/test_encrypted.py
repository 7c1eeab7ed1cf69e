"""Backups that their host cannot read: taken, verified, and restored where the key is."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deploy import backups, planning, recover, runbook
from deploy.command import script
from deploy.host import Host
from deploy.outcome import DataFailed, Invalid
from deploy.pipeline import ordered
from deploy.postgres import backup, restore, sealed
from deploy.postgres.access import Database
from deploy.run import Run
from deploy.session import Session, opened
from deploy.steps import data, prepare, rehearse
from tests.integration.deploy.test_retention import release, run_of
from tests.support.container import sql
from tests.support.dumps import AT, ORIGIN, ROWS, back_up, content, databases, files, put, quiet
from tests.support.sshd import make_key

pytestmark = pytest.mark.slow

NAME = "shop_2026-01-02_03-04-05.sql.gz.age"
READABLE = ".shop_2026-01-02_03-04-05.sql.gz.part"


def run(*words: str) -> bytes:
    return subprocess.run(words, capture_output=True, timeout=30, check=True).stdout


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key, which is on no host."""
    path = tmp_path / "home" / "key.txt"
    path.parent.mkdir()
    run("age-keygen", "-o", str(path))
    return path


@pytest.fixture
def secret(filled: Database, key: Path) -> Database:
    """A database whose backups are encrypted for that key."""
    return replace(filled, encrypt_to=run("age-keygen", "-y", str(key)).decode().strip())


@pytest.fixture
def restoring(secret: Database, here: Host, tmp_path: Path) -> Run:
    """A run that is to restore the backup."""
    found = run_of("restore", here, Path(secret.folder).parent, secret.container)
    database = found.settings.database.model_copy(update={"encrypt_to": secret.encrypt_to})
    found.settings = found.settings.model_copy(update={"database": database})
    found.folder, found.ref = tmp_path / "home", NAME
    return found


def test_a_backup_is_encrypted_as_it_is_written(secret: Database, key: Path) -> None:
    taken = back_up(secret, AT)
    lies = Path(taken.path).read_bytes()
    assert taken.name == NAME
    assert lies.startswith(b"age-encryption.org/v1\n")
    assert (taken.bytes, taken.sha256) == (len(lies), hashlib.sha256(lies).hexdigest())
    assert Path(taken.path).stat().st_mode & 0o777 == 0o600
    plain = gzip.decompress(run("age", "--decrypt", "--identity", str(key), taken.path))
    assert (len(plain), dict(taken.tables)) == (taken.plain, ROWS)
    manifest = json.loads(Path(f"{taken.path}.json").read_text())
    assert (manifest["encrypted"], manifest["recipient"]) == (True, secret.encrypt_to)
    (listed,) = backup.listing(secret.host, secret.folder)
    assert (listed.state, listed.encrypted, listed.rows) == ("good", True, 241)
    assert files(secret) == [NAME, f"{NAME}.json"]


def test_a_key_of_ssh_will_do(filled: Database, tmp_path: Path) -> None:
    key = make_key(tmp_path / "id")
    recipient = key.with_suffix(".pub").read_text().strip()
    taken = back_up(replace(filled, encrypt_to=recipient), AT)
    plain = gzip.decompress(run("age", "--decrypt", "--identity", str(key), taken.path))
    assert len(plain) == taken.plain


def test_what_cannot_be_encrypted_is_no_backup(filled: Database) -> None:
    with pytest.raises(DataFailed) as caught:
        back_up(replace(filled, encrypt_to="age1" + "q" * 58), AT)
    assert "age ended with exit code 1" in caught.value.why
    assert "recipient" in caught.value.why
    assert files(filled) == []


def test_a_host_without_age_is_told_what_to_install(
    secret: Database, restoring: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "bin"
    there.mkdir()
    for path in (
        file for folder in ("/usr/local/bin", "/bin", "/usr/bin") for file in Path(folder).iterdir()
    ):
        if path.name != "age" and not (there / path.name).exists():
            (there / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(there))
    with pytest.raises(Invalid) as refused:
        prepare.preflight(restoring)
    assert "local has no age (apt-get install)" in refused.value.why
    with pytest.raises(DataFailed) as caught:
        back_up(secret, AT)
    assert "age cannot be started: No such file or directory" in caught.value.why
    with pytest.raises(Invalid, match="this machine, which has no age"):
        backups.with_key(NAME, str(tmp_path / "home/key.txt"), ())


def test_it_is_restored_by_way_of_where_the_key_is(
    secret: Database, restoring: Run, key: Path
) -> None:
    before, taken = content(secret), back_up(secret, AT)
    sql(secret.container, "drop table plain")
    seen = restore.preview(secret, NAME, quiet)
    assert (seen.rows_then, seen.rows_now) == (241, 37)
    data.decrypt(restoring, key)
    there = Path(secret.folder, READABLE)
    assert there.stat().st_mode & 0o777 == 0o600
    assert gzip.decompress(there.read_bytes()).startswith(b"--\n-- PostgreSQL database dump")
    done = restore.restore(secret, NAME, ORIGIN, AT.replace(hour=5), quiet)
    assert content(secret) == before
    assert done.rows_after == 241
    assert done.safety.encrypted
    restore.finish(secret, done)
    assert not there.exists()
    assert (key.parent / "backups" / NAME).read_bytes() == Path(taken.path).read_bytes()


def test_one_beside_leaves_nothing_readable_either(
    secret: Database, restoring: Run, key: Path
) -> None:
    back_up(secret, AT)
    data.decrypt(restoring, key)
    contents = restore.beside(secret, NAME, "then", AT, quiet)
    assert contents.rows == 241
    assert databases(secret) == "live postgres then"
    sql(secret.container, 'drop database "then"', "postgres")
    assert files(secret) == [NAME, f"{NAME}.json"]


def test_what_is_not_what_was_encrypted_is_refused_and_removed(
    secret: Database, restoring: Run, key: Path
) -> None:
    back_up(secret, AT)
    data.decrypt(restoring, key)
    sql(secret.container, "delete from parts")
    other = back_up(replace(secret, encrypt_to=""), AT.replace(hour=4))
    there = Path(secret.folder, READABLE)
    there.write_bytes(Path(other.path).read_bytes())
    before = content(secret)
    with pytest.raises(DataFailed, match="damaged"):
        restore.restore(secret, NAME, ORIGIN, AT.replace(hour=5), quiet)
    assert content(secret) == before
    assert databases(secret) == "live postgres"
    assert not there.exists()


def test_the_wrong_key_opens_nothing(secret: Database, restoring: Run, tmp_path: Path) -> None:
    back_up(secret, AT)
    wrong = make_key(tmp_path / "id")
    with pytest.raises(DataFailed, match="could not be decrypted") as caught:
        data.decrypt(restoring, wrong)
    assert "no identity matched" in caught.value.why
    assert secret.encrypt_to in caught.value.next_step
    data.remove_decrypted(restoring)  # as the run does then
    assert files(secret) == [NAME, f"{NAME}.json"]


def test_what_a_killed_run_left_readable_is_removed_by_the_next(
    secret: Database, restoring: Run, key: Path
) -> None:
    back_up(secret, AT)
    data.decrypt(restoring, key)
    assert READABLE in files(secret)
    secret.host.ask(script(recover.PARTS, secret.folder, secret.folder))
    assert files(secret) == [NAME, f"{NAME}.json"]


def test_of_one_that_is_not_encrypted_nothing_is_removed(here: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.sql.gz"
    path.touch()
    sealed.remove(here, str(path))
    assert path.exists()


@pytest.mark.parametrize("identity", ["", "/no/such/key"])
def test_without_its_key_it_is_refused(identity: str) -> None:
    with pytest.raises(Invalid) as caught:
        backups.with_key(NAME, identity, ())
    assert caught.value.code == 7
    assert caught.value.next_step.startswith(f"inv restore {NAME} --identity ~/")


def test_the_host_takes_over_when_it_is_decrypted(key: Path) -> None:
    steps = backups.with_key(NAME, str(key), runbook.restoration())
    assert [step.name for step in ordered(steps)][2:] == ["recover", "decrypt", "cutover"]
    plain = runbook.restoration()
    assert backups.with_key("a.sql.gz", "", plain) is plain


def test_its_check_sum_alone_is_verified(secret: Database, restoring: Run) -> None:
    taken = back_up(secret, AT)
    for check in (data.read_through, data.restored_apart):
        data.verify(restoring, data.one_of, check)
        (told,) = restoring.facts["verified"]
        assert told["how"] == "241 rows, by its check sum alone: it is encrypted"
    (listed,) = backup.listing(secret.host, secret.folder)
    assert (listed.state, listed.sha256, listed.rows) == ("good", taken.sha256, 241)
    assert dict(listed.tables) == ROWS
    text = bytearray(Path(taken.path).read_bytes())
    text[len(text) // 2] ^= 1
    Path(taken.path).write_bytes(text)
    with pytest.raises(DataFailed, match="1 of 1"):
        data.verify(restoring, data.one_of, data.read_through)
    (listed,) = backup.listing(secret.host, secret.folder)
    assert listed.state == "damaged"
    text[len(text) // 2] ^= 1
    Path(taken.path).write_bytes(text)
    data.verify(restoring, data.one_of, data.read_through)
    (listed,) = backup.listing(secret.host, secret.folder)
    assert listed.state == "good"


def test_of_one_without_a_manifest_nothing_is_known(secret: Database, restoring: Run) -> None:
    put(secret, NAME, b"age-encryption.org/v1\n")
    (listed,) = backup.listing(secret.host, secret.folder)
    assert (listed.state, listed.encrypted) == ("unverified", True)
    with pytest.raises(DataFailed):
        data.verify(restoring, data.one_of, data.read_through)
    assert restoring.facts["verified"][0]["state"] == "not proved"
    with pytest.raises(DataFailed, match="Nobody knows"):
        restore.preview(secret, NAME, quiet)


def test_migrations_are_not_rehearsed_on_what_nothing_can_read(
    secret: Database, restoring: Run
) -> None:
    restoring.previous, restoring.backup = release("r1"), back_up(secret, AT)
    assert rehearse._needless(restoring, may_wait=True) == rehearse.UNREADABLE
    migrate = restoring.settings.migrate.model_copy(update={"command": ("true",)})
    restoring.settings = restoring.settings.model_copy(update={"migrate": migrate})
    assert planning._rehearse(restoring, None) == ("skip", rehearse.UNREADABLE)


@pytest.fixture
def session(secret: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A project on this machine whose database is that one, and nothing else is there."""
    settings = {
        "deploy": {
            "project": secret.container,
            "title": "Shop",
            "root": str(tmp_path),
            "minimum_free_mb": 1,
        },
        "proxy": {"container": "no-such-door", "network": "no-such-network"},
        "database": {
            "service": "localhost",
            "backup_prefix": "shop",
            "encrypt_to": secret.encrypt_to,
        },
    }
    folder = tmp_path / "home"
    (folder / "invoke.yaml").write_text(yaml.safe_dump(settings))
    with opened(folder, "local", "inv", dict(os.environ)) as found:
        yield found


def test_from_the_command_to_the_rows(secret: Database, session: Session, key: Path) -> None:
    before = content(secret)
    name = backups.back_up(session, "", download=True)["name"]
    sql(secret.container, "delete from plain")
    with pytest.raises(Invalid, match="its private key is not on the host"):
        backups.restore(session, name, None, "", yes=True)
    with pytest.raises(DataFailed, match="could not be decrypted"):
        backups.restore(session, name, None, str(make_key(key.parent / "id")), yes=True)
    assert all(path.endswith((".age", ".age.json")) for path in files(secret))
    backups.restore(session, name, None, str(key), yes=True)
    assert content(secret) == before
    assert all(path.endswith((".age", ".age.json")) for path in files(secret))
    told = (path.read_bytes() for path in Path(secret.folder).parent.rglob("*") if path.is_file())
    private = next(line for line in key.read_bytes().splitlines() if line.startswith(b"AGE-"))
    assert private not in b"".join(text for text in told if not text.startswith(b"# created"))
