"""What DATABASE_URL may be, against a real PostgreSQL."""

from __future__ import annotations

import pytest

from deploy.outcome import Invalid
from deploy.postgres import access, address
from deploy.postgres.access import Database
from deploy.settings import Deploy, Proxy, Settings
from deploy.settings.schema import Database as Section
from tests.support.container import SECRET, docker, sql


def settings_of(database: Database) -> Settings:
    return Settings(
        deploy=Deploy(project=database.container, title="Shop", root="/srv/shop"),
        proxy=Proxy(container="c", network="n"),
        database=Section(service="localhost"),
    )


@pytest.fixture
def strict(database: Database) -> Database:
    """A database that asks for a password where the image would not."""
    hba = "sed -i '/^host/s/trust/scram-sha-256/' \"$PGDATA/pg_hba.conf\""
    docker("exec", database.container, "sh", "-c", hba)
    sql(database.container, "select pg_reload_conf()", "postgres")
    return database


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://owner:{SECRET}@localhost/live",
        f"postgresql://owner@localhost:5432/live?password={SECRET}",
        f"postgresql://owner:wrong@localhost/nowhere?password={SECRET}&dbname=live",
        f"postgresql://owner:{SECRET}@elsewhere/live?host=localhost&application_name=x",
        f"postgresql://owner:{SECRET}@localhost/live?options=-c%20geqo%3Doff&sslrootcert=/x.crt",
    ],
)
def test_an_address_that_opens_a_database(strict: Database, url: str) -> None:
    access.check_url(strict.host, settings_of(strict), url)
    assert SECRET not in strict.host.log.take().decode()


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("localhost/live?password=wrong", "password authentication failed"),
        ("localhost/live?dbname=nowhere", "does not exist"),
        ("localhost/live?user=nobody", "password authentication failed"),
        ("localhost/live?port=1", "port 1 failed"),
        ("localhost/live?sslmode=require", "does not support SSL"),
        ("localhost/live?sslmode=nonsense", "sslmode"),
        ("localhost/live?options=-c%20nonsense%3D1", "nonsense"),
    ],
)
def test_an_address_whose_query_is_wrong(strict: Database, rest: str, says: str) -> None:
    url = f"postgresql://owner:{SECRET}@{rest}"
    with pytest.raises(Invalid, match="DATABASE_URL does not open a database") as caught:
        access.check_url(strict.host, settings_of(strict), url)
    assert says in caught.value.why
    assert SECRET not in strict.host.log.take().decode()


def test_a_certificate_that_only_the_application_has_is_not_asked_for() -> None:
    url = "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/app/root.crt&unknown=1"
    told = address.variables(address.parameters(url)).split()
    assert told[-2:] == ["PGSSLMODE=require", "PGCONNECT_TIMEOUT=5"]
    assert len(told) == 7


@pytest.mark.parametrize(
    "url", ["postgresql://h:port/d", "postgresql://[::1/d", "postgresql://u:p@h/d?password=a%0Ab"]
)
def test_an_address_that_cannot_be_read(url: str) -> None:
    with pytest.raises(Invalid, match="DATABASE_URL cannot be read"):
        address.parameters(url)
