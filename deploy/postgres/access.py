"""How the database is reached, and whether DATABASE_URL opens it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from deploy.command import Command, script
from deploy.host import Host, Process
from deploy.outcome import DeployFailed, Failure, Invalid, Unreachable

if TYPE_CHECKING:
    from deploy.settings import Settings

FIND = """
docker ps --quiet --no-trunc --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.service=$2" | head -n 1
"""
# The values come by standard input, a line each: an argument could be read by any user.
CONNECT = """
while IFS= read -r pair; do export "$pair"; done
exec psql -X -w -qtA -c "select 1"
"""
# What a URL may say of a connection, by the variable that tells libpq the same. What names a
# file is left out: it is in the application's container, not where we ask from.
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "gssencmode": "PGGSSENCMODE",
    "channel_binding": "PGCHANNELBINDING",
    "client_encoding": "PGCLIENTENCODING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
FROM_INSIDE = 'docker exec --interactive "$1" sh -c "$2"'
FROM_OUTSIDE = """
image=$(docker inspect --format '{{.Image}}' "$1")
docker run --rm --interactive --network "$3" --entrypoint sh "$image" -c "$2"
"""
QUERY = """
docker exec --interactive "$1" sh -c \
  'exec psql -X -w -qtA -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"'
"""

# Advisory locks are those of one database: everybody takes this one where all can get at it.
ALONE = """
docker exec --interactive "$1" sh -c '
  export PGAPPNAME="$1"
  exec psql -X -w -qtA -v key="$2" -v wait="$3" -U "$POSTGRES_USER" -d postgres
' psql "$2" "$3" "$4"
"""
# Lives until its input ends, as it does when we are killed: then the lock is free.
TAKE = rb"""
select set_config(name, case name when 'lock_timeout' then :'wait' else '0' end, false)
  from pg_settings where name in ('lock_timeout', 'idle_session_timeout') \g /dev/null
select pg_advisory_lock(:key) \g /dev/null
\if :ERROR
  select 'process ' || pid || ' (' || coalesce(application_name, '') || ')'
    from pg_locks join pg_stat_activity using (pid)
    where locktype = 'advisory' and granted and objsubid = 1
      and (classid::bigint << 32 | objid::bigint) = :key
      and database = (select oid from pg_database where datname = current_database());
  \quit
\endif
\echo held
"""
HELD = b"held\n"
PATIENCE = 10.0  # seconds that the lock of another is waited for
MARGIN = 20.0  # seconds beyond that after which a server that says nothing is given up
ENDING = 5.0  # seconds that a session gets to end


@dataclass(frozen=True)
class Database:
    """An application's database, and where its backups are kept.

    Args:
        host: Where its container runs.
        container: The container.
        folder: Where backups are kept on the host.
        prefix: What their names begin with.
        deadline: Seconds for a dump or a restore.
        library: The folder of this package on the host, sent there when it is missing.
        encrypt_to: Whom backups are encrypted for, empty for nobody.
    """

    host: Host
    container: str
    folder: str
    prefix: str
    deadline: float
    library: str
    encrypt_to: str = ""


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
        library=f"{settings.deploy.root}/lib",
        encrypt_to=settings.database.encrypt_to,
    )


def container(host: Host, settings: Settings) -> str:
    """Return the id of the database's container, empty when there is none."""
    if not settings.database.service:
        return ""
    return host.ask(script(FIND, settings.deploy.project, settings.database.service)).strip()


def query(identity: str, sql: str) -> Command:
    """Return the command that sends constant SQL to the application's database."""
    return script(QUERY, identity, stdin=sql.encode(), deadline=60)


@contextlib.contextmanager
def alone(
    database: Database, project: str, who: str, hold: float, wait: float = PATIENCE
) -> Iterator[None]:
    """Let nobody else migrate meanwhile, whoever starts it, by a lock that PostgreSQL keeps.

    Args:
        database: Whose server keeps it.
        project: What is migrated: one at a time.
        who: What others are told who find it taken.
        hold: Seconds that it is held at the most.
        wait: Seconds to wait for another who has it.

    Raises:
        DeployFailed: It cannot be had; the message says who has it.
        Unreachable: The link was lost.
    """
    words = (database.container, who, str(lock_key(project)), f"{wait:g}s")
    process = database.host.start(script(ALONE, *words, stdin=b"", deadline=wait + hold + MARGIN))
    try:
        said = _taken(process, wait + MARGIN)
        if not said.endswith(HELD):
            raise _not_alone(database.host, project, said.decode(errors="replace"), process)
        yield
    finally:
        with contextlib.suppress(OSError, Unreachable):
            process.end_input()
            process.wait(ENDING)
        process.stop()


def lock_key(project: str) -> int:
    """Return the number of the lock that a project's migrations are done under."""
    return int.from_bytes(hashlib.sha256(f"migrate {project}".encode()).digest()[:7])


def _taken(process: Process, seconds: float) -> bytes:
    """Ask for the lock; return what is said to that, nothing when nothing is said in time."""
    watch = threading.Timer(seconds, process.stop)
    watch.start()
    said = b""
    try:
        process.write(TAKE)
        while not said.endswith(HELD) and (more := process.read()):
            said += more
    except (OSError, ValueError):  # stopped, or it ended: then it says why
        return said
    finally:
        watch.cancel()
    return said


def _not_alone(host: Host, project: str, said: str, process: Process) -> Failure:
    if said.strip():
        return DeployFailed(
            f"Somebody else migrates the database of {project}",
            where=host.name,
            why=f"PostgreSQL's {said.strip()} holds the lock",
            next_step="wait for its end, or end it with pg_terminate_backend; then deploy again",
        )
    try:
        why = process.read_error().decode(errors="replace").strip()
    except (OSError, ValueError):
        why = ""
    return DeployFailed(
        f"The lock for migrating the database of {project} cannot be had",
        where=host.name,
        why=why or "PostgreSQL did not answer in time",
        next_step="see what it says: docker logs CONTAINER; then deploy again",
    )


def from_url(url: str, settings: Settings, example: Mapping[str, str]) -> dict[str, str]:
    """Given the caller's DATABASE_URL, return what makes the compose file's database fit it.

    Only for a first deployment, and only when the address is that of the database service.
    """
    said = parameters(url)
    if not settings.database.service or said["host"] != settings.database.service:
        return {}
    given = {
        "POSTGRES_USER": said["user"],
        "POSTGRES_PASSWORD": said["password"],
        "POSTGRES_DB": said["dbname"],
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
    given = parameters(url)
    inside = given["host"] == settings.database.service
    way = FROM_INSIDE if inside else FROM_OUTSIDE
    told = variables(given).encode()
    result = host.run(script(way, identity, CONNECT, settings.proxy.network, stdin=told))
    if not result.ok:
        raise Invalid(
            "DATABASE_URL does not open a database",
            where=f"{host.name}, {given['host']}:{given['port']}",
            why=result.tail(3),
            next_step=f"correct DATABASE_URL, here or in {settings.deploy.root}/.env",
        )


def parameters(url: str) -> dict[str, str]:
    """Given a DATABASE_URL, return what it says of the connection; its query has the last word.

    Raises:
        Invalid: It is no URL, or something in it cannot be told line by line.
    """
    try:
        parts = urlsplit(url)
        given = {
            "host": parts.hostname or "",
            "port": str(parts.port or 5432),
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "dbname": unquote(parts.path.removeprefix("/")),
            **dict(parse_qsl(parts.query, keep_blank_values=True)),
        }
    except ValueError as error:
        raise _unreadable() from error
    if any(character in value for value in given.values() for character in "\n\r\0"):
        raise _unreadable()
    return given


def variables(given: Mapping[str, str]) -> str:
    """Given what a DATABASE_URL says, return the lines that tell libpq the same."""
    known = {VARIABLES[name]: value for name, value in given.items() if name in VARIABLES}
    if known.get("PGSSLMODE", "").startswith("verify-"):
        known["PGSSLMODE"] = "require"  # the certificate to verify by is one of the files
    lines = {**known, "PGCONNECT_TIMEOUT": "5"}
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _unreadable() -> Invalid:
    return Invalid(
        "DATABASE_URL cannot be read",
        where="DATABASE_URL",
        next_step="it must look like postgresql://user:password@host:5432/database",
    )
