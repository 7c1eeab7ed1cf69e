"""A database that is no service of the compose file: a server that only an address leads to."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from deploy import recover
from deploy.dotenv import write_env
from deploy.host import Host
from deploy.outcome import DataFailed, DeployFailed, Invalid
from deploy.pipeline import Done
from deploy.postgres import access, client, restore
from deploy.postgres.access import Database
from deploy.releases import Release
from deploy.run import Caller, Run
from deploy.schedule import work
from deploy.settings import Deploy, Migrate, Proxy, Settings, schema
from deploy.steps import data, live, make, rehearse
from tests.support.container import docker, sql
from tests.support.dumps import databases, quiet

pytestmark = pytest.mark.slow

IMAGE = "postgres:15-bookworm"
PASSWORD = "p@ss w#rd $HOME 'x\" y"
# Says what it was called with, and is the real one.
WRAPPER = '#!/bin/sh\nprintf "%s\\n" "$*" >>"{told}"\nexec "{docker}" "$@"\n'
# Lets pg_dump be of another version, as far as it says so itself.
OTHER = """#!/bin/sh
case "$*" in
  *"pg_dump --compress"*)
    "{docker}" "$@" | gzip -dc | sed 's/pg_dump version 15/pg_dump version 17/' | gzip -c ;;
  *) exec "{docker}" "$@" ;;
esac
"""
# Says what the real one says to a newer server.
OLD = """#!/bin/sh
case "$*" in
  *"pg_dump --compress"*) echo 'error: aborting because of server version mismatch' >&2; exit 1 ;;
  *) exec "{docker}" "$@" ;;
esac
"""


@dataclass(frozen=True)
class Elsewhere:
    """A server that has a role and a database for the project, on the application's network."""

    server: str
    network: str
    run: Run

    @property
    def name(self) -> str:
        return client.name_of(self.run.settings)

    def url(self, password: str = PASSWORD, name: str = "shop") -> str:
        return f"postgresql://app:{quote(password, safe='')}@{self.server}:5432/{name}"

    def say(self, url: str) -> None:
        """Write the host's environment file, as a deployment leaves it."""
        told = write_env({"DATABASE_URL": url, "A": "what-nobody-masks"})
        Path(self.run.layout.env_file).write_bytes(told)

    def database(self) -> Database:
        return data.database(self.run.target, self.run.settings)

    def databases(self) -> str:
        return databases(replace(self.database(), container=self.server))

    def sql(self, text: str, name: str = "shop") -> str:
        return sql(self.server, text, name)


@pytest.fixture(scope="module")
def network(server: str) -> Iterator[str]:
    """A network that the server is on, as an application's would be."""
    name = f"deploy-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        docker("network", "connect", name, server)
        yield name
    finally:
        docker("network", "disconnect", "--force", name, server, check=False)
        docker("network", "rm", name)


@pytest.fixture
def there(server: str, network: str, here: Host, tmp_path: Path) -> Iterator[Elsewhere]:
    project = f"deploy-test-{uuid.uuid4().hex[:8]}"
    settings = Settings(
        deploy=Deploy(project=project, title="Shop", root=str(tmp_path)),
        proxy=Proxy(container=project, network=network),
        database=schema.Database(client_image=IMAGE, keep_min=1),
        migrate=Migrate(command=("true",), heads_query="select head from heads"),
    )
    caller, now = Caller("ann", "laptop", "inv"), datetime.now(UTC)
    run = Run("backup", settings, tmp_path, here, here, here.log, caller, now)
    for folder in run.layout.folders:
        Path(folder).mkdir(exist_ok=True)
    sql(server, "drop database if exists shop with (force)", "postgres")
    sql(server, "drop role if exists app", "postgres")
    word = PASSWORD.replace("'", "''")
    sql(server, f"create role app login createdb password '{word}'", "postgres")
    sql(server, "create database shop owner app", "postgres")
    fill = "set role app; create table heads (head text); insert into heads values ('0007')"
    sql(server, fill, "shop")
    found = Elsewhere(server, network, run)
    found.say(found.url())
    try:
        yield found
    finally:
        docker("rm", "--force", "--volumes", found.name, check=False)
        sql(server, "drop database if exists shop with (force)", "postgres")


def inspected(name: str, template: str) -> str:
    return docker("inspect", "--format", template, name).strip()


def wrap(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program before docker that is called in its place."""
    path = folder / "bin/docker"
    path.parent.mkdir()
    path.write_text(
        text.replace("{told}", f"{folder}/told").replace("{docker}", shutil.which("docker") or "")
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")


def test_it_is_backed_up_and_restored_like_any_other(there: Elsewhere) -> None:
    assert live.heads(there.run) == ["0007"]
    assert data.back_up(there.run).note.endswith("bytes")
    taken = there.run.backup
    assert taken is not None
    assert (taken.tables, taken.heads) == ({"public.heads": 1}, ("0007",))
    assert data.verify(there.run, data.one_of, data.restored_apart).note == "1 good"
    there.sql("update heads set head = '0008'")
    there.run.ref = taken.name
    data.bring_back(there.run)
    assert there.sql("select head from heads") == "0007"
    assert "before_" in there.databases()
    data.see_it_work(there.run)
    assert there.run.warnings == []
    assert there.databases() == "live postgres shop"
    # The role of the application owns it still.
    owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'shop'"
    assert there.sql(owner) == "app"


def test_the_lock_of_the_migrations_is_kept_on_its_server(there: Elsewhere) -> None:
    with access.alone(there.database(), "shop", "deploy first", 30):
        count = "select count(*) from pg_locks where locktype = 'advisory'"
        assert there.sql(count) == "1"
        assert live.heads(there.run) == ["0007"]
    work.await_database(there.run.target, there.run.settings)


def test_the_container_can_do_little_and_stays_until_the_address_changes_or_it_ends(
    there: Elsewhere,
) -> None:
    host, settings = there.run.target, there.run.settings
    with ThreadPoolExecutor(4) as pool:  # several callers at once make one
        (first,) = set(pool.map(lambda _: access.container(host, settings), range(4)))
    said = json.loads(inspected(there.name, "{{json .HostConfig}}"))
    assert (said["ReadonlyRootfs"], said["RestartPolicy"]["Name"]) == (True, "no")
    assert (said["CapDrop"], said["PortBindings"], said["Memory"]) == (["ALL"], {}, 1 << 30)
    labels = json.loads(inspected(there.name, "{{json .Config.Labels}}"))
    assert len(labels["deploy.client"]) == 64
    assert not any("project" in name for name in labels)
    docker("kill", there.name)
    second = access.container(host, settings)
    assert second not in ("", first)
    assert access.container(host, settings) == second
    there.sql("create database moved owner app", "postgres")
    try:
        there.say(there.url(name="moved"))
        third = access.container(host, settings)
        assert third not in ("", second)
        assert inspected(there.name, "{{.Id}}") == third
        asked = access.query(third, "select current_database()")
        assert host.ask(asked).strip() == "moved"
    finally:
        there.sql("drop database moved with (force)", "postgres")


def test_its_password_is_never_an_argument_nor_in_the_log(
    there: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    wrap(WRAPPER, tmp_path, monkeypatch)
    data.back_up(there.run)
    there.say(there.url("wr0ng-word"))
    with pytest.raises(DataFailed):
        data.back_up(there.run)
    log = there.run.log.take().decode()
    assert "docker run --detach" in log
    assert "run --detach --name" in told.read_text()
    for text in (log, told.read_text(), str(inspected(there.name, "{{json .Args}}"))):
        for secret in (PASSWORD, quote(PASSWORD, safe=""), "wr0ng-word", "what-nobody-masks"):
            assert secret not in text


def test_a_wrong_password_is_told_as_postgresql_tells_it(there: Elsewhere) -> None:
    there.say(there.url("wr0ng-word"))
    with pytest.raises(DataFailed, match="could not be backed up") as caught:
        data.back_up(there.run)
    assert 'password authentication failed for user "app"' in caught.value.why
    assert "correct DATABASE_URL" in caught.value.next_step
    with pytest.raises(Invalid, match="does not open") as refused:
        access.check_url(there.run.target, there.run.settings, there.url("wr0ng-word"))
    assert "password authentication failed" in refused.value.why
    access.check_url(there.run.target, there.run.settings, there.url())
    access.check_url(there.run.target, there.run.settings, "")


def test_a_server_that_cannot_be_reached_is_told(there: Elsewhere) -> None:
    there.say(there.url().replace(there.server, "nowhere.invalid"))
    with pytest.raises(DataFailed, match="could not be backed up") as caught:
        data.back_up(there.run)
    assert 'could not translate host name "nowhere.invalid"' in caught.value.why


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "DATABASE_URL is missing"),
        ("sqlite:///shop.db", "does not name a database of PostgreSQL"),
        ("postgresql:///shop", "does not name a database of PostgreSQL"),
        ("postgresql://there/shop", "does not name a database of PostgreSQL"),
        ("postgresql://app@there:port/shop", "cannot be read"),
    ],
)
def test_an_address_that_leads_nowhere(there: Elsewhere, url: str, says: str) -> None:
    there.say(url)
    with pytest.raises(DataFailed, match=says) as caught:
        there.database()
    assert "DATABASE_URL" in f"{caught.value.where} {caught.value.next_step}"
    assert live.heads(there.run) == []


@pytest.mark.parametrize("text", [OTHER, OLD], ids=["newer", "older"])
def test_programs_of_another_version_are_refused(
    there: Elsewhere, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrap(text, tmp_path, monkeypatch)
    with pytest.raises(DataFailed, match="could not be backed up") as caught:
        data.back_up(there.run)
    assert "server version mismatch" in caught.value.why
    assert "set database.client_image" in caught.value.next_step
    assert list(Path(there.run.layout.backups).iterdir()) == []


def test_a_missing_address_names_the_file_and_the_setting(there: Elsewhere) -> None:
    Path(there.run.layout.env_file).unlink()
    with pytest.raises(DataFailed, match="DATABASE_URL is missing") as caught:
        there.database()
    assert there.run.layout.env_file in caught.value.where
    assert "database.client_image" in caught.value.why


def test_an_image_that_is_nowhere_is_told(there: Elsewhere) -> None:
    none = there.run.settings.database.model_copy(update={"client_image": "localhost:1/none:1"})
    settings = there.run.settings.model_copy(update={"database": none})
    with pytest.raises(DataFailed, match="could not be started") as caught:
        access.container(there.run.target, settings)
    assert "docker pull localhost:1/none:1" in caught.value.next_step
    with pytest.raises(Invalid, match="could not be started"):
        access.check_url(there.run.target, settings, there.url())


def test_a_role_that_may_make_no_database_is_told_what_it_takes(there: Elsewhere) -> None:
    there.sql("alter role app nocreatedb", "postgres")
    data.back_up(there.run)
    assert there.run.backup is not None
    there.run.ref = there.run.backup.name
    with pytest.raises(DataFailed, match="the live database is as it was") as caught:
        data.bring_back(there.run)
    assert "permission denied to create database" in caught.value.why
    assert "alter role NAME createdb" in caught.value.next_step
    assert there.sql("select head from heads") == "0007"


def test_what_others_restore_on_the_same_server_is_left_alone(there: Elsewhere) -> None:
    found, at = there.database(), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    own = restore.pair_of(found, at)
    theirs = restore.pair_of(replace(found, suffix=client.suffix_of(there.url(name="x"))), at)
    plain = restore.pair_of(replace(found, suffix=""), at)
    others = (theirs.new, theirs.old, plain.new, plain.old)
    for name in (own.new, *others):
        there.sql(f"create database {name} owner app", "postgres")
    try:
        assert restore.clean_up(found, datetime.now(UTC), quiet) == own.new
        assert restore.clean_up(found, datetime.now(UTC), quiet) == ""
        names = there.databases().split()
        assert own.new not in names
        assert set(others) < set(names)
    finally:
        for name in others:
            there.sql(f"drop database if exists {name} with (force)", "postgres")


def test_a_deployment_looks_at_the_database_of_its_release(there: Elsewhere) -> None:
    run = replace(there.run, kind="deploy")
    run.release = Release("r1", "a" * 40, "main", "shop:aaaaaaa", "noon")
    place = run.layout.place(run.release.id, run.release.tag)
    Path(place.env_file).parent.mkdir(parents=True)
    Path(place.env_file).write_bytes(write_env({"DATABASE_URL": there.url()}))
    Path(run.layout.env_file).unlink()  # a first deployment: it is kept when all went well
    assert make.back_up(run).state == "ok"
    assert live.heads(run) == ["0007"]
    run.previous = run.release
    assert rehearse.rehearse(run) == Done(rehearse.ELSEWHERE, "skipped")
    Path(place.env_file).write_bytes(b"A=b\n")
    done = make.back_up(run)
    assert done.state == "warned"
    assert "DATABASE_URL is missing" in done.note
    with pytest.raises(DeployFailed, match="DATABASE_URL is missing") as caught:
        live.migrate(run)
    assert caught.value.code == 3


def test_a_run_that_ended_before_the_address_was_known_stops_no_other(there: Elsewhere) -> None:
    journal = Path(there.run.layout.journal, "2026-01-02_03-04-05.jsonl")
    line = {"at": "2026-01-02T03:04:05+00:00", "kind": "deploy", "step": "fetch", "state": "begun"}
    journal.write_text(json.dumps({**line, "mark": "m"}) + "\n")
    Path(there.run.layout.env_file).unlink()
    recover.settle_earlier(there.run)
    assert any("whether a restore ended early" in text for text in there.run.warnings)
