"""How the database is reached, and whether DATABASE_URL opens it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.command import Command, script
from deploy.host import Host, Process
from deploy.layout import Layout
from deploy.outcome import DataFailed, DeployFailed, Failure, Invalid, Unreachable
from deploy.postgres import address, client

if TYPE_CHECKING:
    from deploy.settings import Settings

FIND = """
docker ps --quiet --no-trunc --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.service=$2" | head -n 1
"""
STOPPED = """
docker ps --all --format "{{.Names}}" --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.service=$2" \
  --filter "label=com.docker.compose.oneoff=False" | head -n 1
"""
# The values come by standard input, a line each: an argument could be read by any user.
CONNECT = """
while IFS= read -r pair; do export "$pair"; done
exec psql -X -w -qtA -c "select 1"
"""
FROM_INSIDE = 'docker exec --interactive "$1" sh -c "$2"'
FROM_OUTSIDE = """
image=$(docker inspect --format '{{.Image}}' "$1")
docker run --rm --interactive --network "$3" --entrypoint sh "$image" -c "$2"
"""
QUERY = """
container=$1; shift
docker exec --interactive "$container" sh -c '
  export PGDATABASE="$POSTGRES_DB" PGCLIENTENCODING=UTF8
  exec psql -X -w -qtA -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" "$@"
' psql "$@"
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
        container: The container, its own or one that reaches it.
        folder: Where backups are kept on the host.
        prefix: What their names begin with.
        deadline: Seconds for a dump or a restore.
        library: The folder of this package on the host, sent there when it is missing.
        suffix: What a restore's names end with: others may restore on the same server.
        encrypt_to: Whom backups are encrypted for, empty for nobody.
        name: Another database of the server, to be dumped in the place of the application's.
    """

    host: Host
    container: str
    folder: str
    prefix: str
    deadline: float
    library: str
    suffix: str = ""
    encrypt_to: str = ""
    name: str = ""


def database(host: Host, settings: Settings, env_file: str = "") -> Database | None:
    """Return the application's database, or None when none is configured or running.

    Args:
        host: Where the application runs.
        settings: The settings.
        env_file: As for `container`.

    Raises:
        DataFailed: As `container` does.
    """
    url = _url(host, settings, env_file)
    identity = _container(host, settings, url)
    if not identity:
        return None
    return Database(
        host=host,
        container=identity,
        folder=f"{settings.deploy.root}/backups",
        prefix=settings.database.backup_prefix,
        deadline=settings.database.deadline,
        library=f"{settings.deploy.root}/lib",
        suffix=client.suffix_of(url) if url else "",
        encrypt_to=settings.database.encrypt_to,
    )


def container(host: Host, settings: Settings, env_file: str = "") -> str:
    """Return the id of the container that the database is asked in, empty when there is none.

    Args:
        host: Where the application runs.
        settings: The settings.
        env_file: The environment whose DATABASE_URL leads to a database that is not the compose
            file's; empty for the host's own.

    Raises:
        DataFailed: It does not, or the container that reaches it cannot be started.
    """
    return _container(host, settings, _url(host, settings, env_file))


def _url(host: Host, settings: Settings, env_file: str) -> str:
    """Return where the database is, empty when it is the compose file's or none."""
    if settings.database.service or not settings.database.client_image:
        return ""
    return client.url_of(host, env_file or Layout(settings.deploy.root).env_file)


def _container(host: Host, settings: Settings, url: str) -> str:
    if url:
        return client.container(host, settings, url)
    if not settings.database.service:
        return ""
    return host.ask(script(FIND, settings.deploy.project, settings.database.service)).strip()


def none_runs(host: Host, settings: Settings) -> DataFailed:
    """Return the failure for a database that `database` did not find."""
    service = settings.database.service
    names = host.ask(script(STOPPED, settings.deploy.project, service)) if service else ""
    name = names.strip()
    return DataFailed(
        "No database container runs",
        where=host.name,
        why=f"{name} is stopped" if name else "",
        next_step=f"docker start {name}; docker logs {name}"
        if name
        else "set database.service or database.client_image in invoke.yaml, or inv deploy",
    )


def query(identity: str, sql: str, values: Mapping[str, str] | None = None) -> Command:
    """Return the command that sends constant SQL to the application's database.

    Args:
        identity: The container that it is asked in.
        sql: The text; :'name' in it stands for a value, which psql quotes.
        values: Those, by name. Any user of the host can read them: no secret is among them.
    """
    words = [word for key, value in (values or {}).items() for word in ("-v", f"{key}={value}")]
    return script(QUERY, identity, *words, stdin=sql.encode(), deadline=60)


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
    said = address.parameters(url)
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
    identity = _opening(host, settings, url) if url else ""
    if not identity:
        return
    given = address.parameters(url)
    inside = settings.database.service in ("", given["host"])
    way = FROM_INSIDE if inside else FROM_OUTSIDE
    told = address.variables(given).encode()
    result = host.run(script(way, identity, CONNECT, settings.proxy.network, stdin=told))
    if not result.ok:
        raise Invalid(
            "DATABASE_URL does not open a database",
            where=f"{host.name}, {given['host']}:{given['port']}",
            why=result.tail(3),
            next_step=f"correct DATABASE_URL, here or in {settings.deploy.root}/.env",
        )


def _opening(host: Host, settings: Settings, url: str) -> str:
    """Return the container that a release's address is tried in, empty when there is none."""
    try:
        return _container(host, settings, url if settings.database.client_image else "")
    except DataFailed as error:
        raise Invalid(
            error.what, where=error.where, why=error.why, next_step=error.next_step
        ) from error
