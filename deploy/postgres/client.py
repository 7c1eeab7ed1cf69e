"""A small container from which a database is reached that the compose file does not have.

It has the client programs, and an environment that leads to the database as the image of a
server leads to its own: whatever is asked in a database's container can be asked in this one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from deploy.command import script
from deploy.dotenv import parse_env
from deploy.host import Host, read
from deploy.outcome import DataFailed, Invalid
from deploy.postgres import address
from deploy.redact import secret_values

if TYPE_CHECKING:
    from deploy.settings import Settings

URL = "DATABASE_URL"
# The one that runs, when it was made of the same; else another. Two callers must not both make
# it. The variables come by standard input: an argument could be read by any user.
PROVIDE = r"""
told=$(cat)
exec 9<"$5"
flock --timeout 300 9
found=$(docker ps --quiet --no-trunc --filter "name=^/$1\$" --filter "label=deploy.client=$2")
if [ -n "$found" ]; then echo "$found"; exit 0; fi
docker image inspect "$3" >/dev/null 2>&1 || docker pull --quiet "$3" >/dev/null
docker rm --force --volumes "$1" >/dev/null 2>&1 || true
printf '%s\n' "$told" | docker run --detach --name "$1" --label "deploy.client=$2" \
  --env-file /dev/stdin --network "$4" --add-host host.docker.internal:host-gateway \
  --restart no --init --read-only --cap-drop ALL --security-opt no-new-privileges \
  --memory 1g --pids-limit 64 --entrypoint tail "$3" -f /dev/null
"""
PULL = 600  # seconds that the image may take to arrive


def url_of(host: Host, path: str) -> str:
    """Return the DATABASE_URL of an environment file, which from now on the log masks.

    Raises:
        DataFailed: The file has none.
    """
    try:
        url = parse_env(read(host.unlogged(), path), path).get(URL, "")
    except Invalid as error:
        raise DataFailed(error.what, where=error.where, next_step=error.next_step) from error
    if not url:
        raise DataFailed(
            f"{URL} is missing, so that nobody knows where the database is",
            where=f"{host.name}:{path}",
            why="database.client_image is set: the database is the one that it names",
            next_step=f"write {URL}=postgresql://user:password@host:5432/database there",
        )
    host.log.learn(secret_values({URL: url}))
    return url


def container(host: Host, settings: Settings, url: str) -> str:
    """Return the id of the container that reaches a database, started or made when need be.

    Args:
        host: Where it runs.
        settings: The settings, which name its image and network.
        url: The database.

    Raises:
        DataFailed: The address is no good, or the container cannot be started.
    """
    image, network = settings.database.client_image, settings.proxy.network
    told = environment(url)
    mark = hashlib.sha256(f"{PROVIDE}\n{image}\n{network}\n{told}".encode()).hexdigest()
    words = (name_of(settings), mark, image, network, settings.deploy.root)
    result = host.run(script(PROVIDE, *words, stdin=told.encode(), deadline=PULL))
    if not result.ok:
        raise DataFailed(
            "The container from which the database is reached could not be started",
            where=f"{host.name}, {name_of(settings)}",
            why=result.tail(3),
            next_step=f"docker pull {image} there; `inv deploy` makes the network {network}",
        )
    return result.out.strip()


def environment(url: str) -> str:
    """Given a DATABASE_URL, return the lines of the container's environment.

    Raises:
        DataFailed: It does not say which database of PostgreSQL it means, and as whom.
    """
    try:
        given = address.parameters(url)
    except Invalid as error:
        raise DataFailed(error.what, where=error.where, next_step=error.next_step) from error
    if not (url.startswith("postgres") and given["host"] and given["user"]):
        raise DataFailed(
            f"{URL} does not name a database of PostgreSQL on a server",
            where=URL,
            next_step="it must look like postgresql://user:password@host:5432/database",
        )
    names = f"POSTGRES_USER={given['user']}\nPOSTGRES_DB={database_of(url)}\n"
    return address.variables({**given, "dbname": database_of(url)}) + names


def database_of(url: str) -> str:
    """Return the name of the database that a DATABASE_URL means: that of the user by default."""
    given = address.parameters(url)
    return given["dbname"] or given["user"]


def suffix_of(url: str) -> str:
    """Return what sets apart, on a server of many, the databases that belong to this one."""
    return f"_{hashlib.sha256(database_of(url).encode()).hexdigest()[:8]}"


def name_of(settings: Settings) -> str:
    """Return what the container is called."""
    return f"{settings.deploy.project}-database-client"
