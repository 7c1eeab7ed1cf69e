"""How the database is reached, and whether DATABASE_URL opens it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from deploy.command import Command, script
from deploy.host import Host
from deploy.outcome import Invalid

if TYPE_CHECKING:
    from deploy.settings import Settings

FIND = """
docker ps --quiet --no-trunc --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.service=$2" | head -n 1
"""
# The values come by standard input, a line each: an argument could be read by any user.
CONNECT = """
IFS= read -r PGHOST; IFS= read -r PGPORT; IFS= read -r PGUSER
IFS= read -r PGPASSWORD; IFS= read -r PGDATABASE
export PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE PGCONNECT_TIMEOUT=5
exec psql -X -w -qtA -c "select 1"
"""
FROM_INSIDE = 'docker exec --interactive "$1" sh -c "$2"'
FROM_OUTSIDE = """
image=$(docker inspect --format '{{.Image}}' "$1")
docker run --rm --interactive --network "$3" --entrypoint sh "$image" -c "$2"
"""
QUERY = """
docker exec --interactive "$1" sh -c \
  'exec psql -X -w -qtA -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"'
"""


@dataclass(frozen=True)
class Database:
    """An application's database, and where its backups are kept.

    Args:
        host: Where its container runs.
        container: The container.
        folder: Where backups are kept on the host.
        prefix: What their names begin with.
        deadline: Seconds for a dump or a restore.
    """

    host: Host
    container: str
    folder: str
    prefix: str
    deadline: float


def database(host: Host, settings: Settings) -> Database | None:
    """Return the application's database, or None when none is configured or running."""
    identity = container(host, settings)
    if not identity:
        return None
    return Database(
        host=host,
        container=identity,
        folder=f"{settings.deploy.root}/backups",
        prefix=settings.database.backup_prefix,
        deadline=settings.database.deadline,
    )


def container(host: Host, settings: Settings) -> str:
    """Return the id of the database's container, empty when there is none."""
    if not settings.database.service:
        return ""
    return host.ask(script(FIND, settings.deploy.project, settings.database.service)).strip()


def query(identity: str, sql: str) -> Command:
    """Return the command that sends constant SQL to the application's database."""
    return script(QUERY, identity, stdin=sql.encode(), deadline=60)


def from_url(url: str, settings: Settings, example: Mapping[str, str]) -> dict[str, str]:
    """Given the caller's DATABASE_URL, return what makes the compose file's database fit it.

    Only for a first deployment, and only when the address is that of the database service.
    """
    parts = urlsplit(url)
    if not settings.database.service or parts.hostname != settings.database.service:
        return {}
    given = {
        "POSTGRES_USER": unquote(parts.username or ""),
        "POSTGRES_PASSWORD": unquote(parts.password or ""),
        "POSTGRES_DB": parts.path.removeprefix("/"),
    }
    return {name: value for name, value in given.items() if value and name in example}


def check_url(host: Host, settings: Settings, url: str) -> None:
    """See that a DATABASE_URL opens a database.

    Args:
        host: Where the database's container runs.
        settings: The settings.
        url: The release's DATABASE_URL; empty is none, and fine.

    Raises:
        Invalid: It does not; the message holds what PostgreSQL said.
    """
    identity = container(host, settings)
    if not identity or not url:
        return
    parts = urlsplit(url)
    values = (
        parts.hostname or "",
        str(parts.port or 5432),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        unquote(parts.path.removeprefix("/")),
    )
    told = "".join(f"{value}\n" for value in values).encode()
    inside = parts.hostname == settings.database.service
    way = FROM_INSIDE if inside else FROM_OUTSIDE
    result = host.run(script(way, identity, CONNECT, settings.proxy.network, stdin=told))
    if not result.ok:
        raise Invalid(
            "DATABASE_URL does not open a database",
            where=f"{host.name}, {parts.hostname}:{parts.port or 5432}",
            why=result.tail(3),
            next_step=f"correct DATABASE_URL, here or in {settings.deploy.root}/.env",
        )
