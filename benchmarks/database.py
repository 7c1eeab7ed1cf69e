"""What a backup and a restore take, beside what a person would type instead.

`python -m benchmarks.database [GB] [ROUNDS]` fills a PostgreSQL of its own, on disk and with the
settings of its image, with about that many GB of pgbench's accounts, log lines with JSON, and
measurements. Then it does each thing in turn, that many times, and removes all that it made. What
is ours has every check in it: a backup is read, hashed, synced and published; a restore makes the
database, loads, counts each table's rows, compares the sequences and analyzes.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.host import local_host
from deploy.log import RunLog
from deploy.postgres import backup, restore
from deploy.postgres.access import Database
from deploy.postgres.backup import Backup, Origin
from deploy.redact import Redactor
from sandbox.shell import ask, must, say

IMAGE = "postgres:15-bookworm"
GB = 2
ROUNDS = 5
LONG = 7200.0  # seconds
# Of each, for a GB: together a little more than that.
ACCOUNTS, EVENTS, READINGS = 20, 1_300_000, 2_900_000
WORDS = """
account address agent backup balance billing cache cancelled changed checked client closed code
connection container created customer database deadline delayed deleted delivered denied deployed
disk document done email empty expired failed file found gateway handler header host invoice item
job key limit link login lost message missing moved network order packet paid parcel password
payment pending process queue read refund release request retry sent
"""
FILL = """
select setseed(0.5);
create table events (
  id bigint generated always as identity primary key,
  at timestamptz not null, level text not null, message text not null, detail jsonb not null
);
create table readings (
  id bigint generated always as identity primary key,
  at timestamptz not null, sensor int not null, value numeric(12, 4) not null,
  reading double precision not null
);
insert into events (at, level, message, detail)
select timestamptz '2026-01-01' + n * interval '0.37 s',
  (array['debug', 'info', 'info', 'info', 'warning', 'error'])[1 + floor(random() * 6)::int],
  (select string_agg((string_to_array(:'words', ' '))[1 + floor(random() * 64)::int], ' ')
    from generate_series(1, 8 + n % 9)),
  jsonb_build_object('request', md5(random()::text), 'user', floor(random() * 50000)::int,
    'path', '/orders/' || floor(random() * 1e6)::int, 'ms', round((random() * 900)::numeric, 2))
from generate_series(1, :events) n;
insert into readings (at, sensor, value, reading)
select timestamptz '2026-01-01' + n * interval '1.1 s', floor(random() * 400)::int,
  round((random() * 1e6)::numeric, 4), random() * 100
from generate_series(1, :readings) n;
create index on events (at);
create index on readings (sensor, at);
vacuum (analyze, parallel 0);
"""
QUERY = ("psql", "-X", "-qtA", "-v", "ON_ERROR_STOP=1", "-U", "owner")

# What a person types: $1 is the container, $2 a file, $3 a database.
GZIP_HERE = 'docker exec "$1" pg_dump -U owner -d live | gzip >"$2"'
GZIP_THERE = 'docker exec "$1" sh -c "pg_dump -U owner -d live | gzip" >"$2"'
NOWHERE_HERE = 'docker exec "$1" pg_dump -U owner -d live >/dev/null'
NOWHERE_THERE = 'docker exec "$1" sh -c "pg_dump -U owner -d live >/dev/null"'
PSQL = """
zcat "$2" | docker exec -i "$1" psql -X -q -1 -v ON_ERROR_STOP=1 -o /dev/null -U owner -d "$3"
"""


@dataclass(frozen=True)
class Bench:
    """A database that is measured, and where its dumps go."""

    database: Database
    folder: Path

    def sql(self, text: str, name: str = "postgres", *words: str) -> str:
        """Run SQL in one of the databases."""
        there = ("docker", "exec", "-i", self.database.container, *QUERY, "-d", name, *words)
        return must(there, stdin=text, deadline=LONG, next_step="").strip()

    def settle(self) -> None:
        """Let nothing of what was done before cost what comes next."""
        self.sql("checkpoint;")
        os.sync()

    def typed(self, text: str, file: Path, name: str = "") -> float:
        """Do what a person types; return the seconds."""
        self.settle()
        began = time.monotonic()
        words = (text, "bash", self.database.container, str(file), name)
        subprocess.run(("bash", "-o", "pipefail", "-c", *words), check=True, timeout=LONG)
        return time.monotonic() - began

    def ours(self, work: Callable[[], object]) -> float:
        """Do something of ours; return the seconds."""
        self.settle()
        began = time.monotonic()
        work()
        return time.monotonic() - began


@contextlib.contextmanager
def made(gigabytes: float) -> Iterator[Bench]:
    """Yield a filled database; nothing is left of it after the block."""
    name = f"benchmark-{uuid.uuid4().hex[:8]}"
    given = ("POSTGRES_USER=owner", "POSTGRES_DB=live", f"POSTGRES_PASSWORD={uuid.uuid4().hex}")
    words = ("docker", "run", "--detach", "--name", name, *(f"--env={pair}" for pair in given))
    with tempfile.TemporaryDirectory() as folder:
        must((*words, IMAGE), deadline=300, next_step="")
        try:
            here = local_host(RunLog(Redactor(), io.StringIO()))
            database = Database(here, name, f"{folder}/backups", "live", LONG, f"{folder}/lib")
            bench = Bench(database, Path(folder))
            fill(bench, gigabytes)
            yield bench
        finally:
            must(("docker", "rm", "--force", "--volumes", name), deadline=60, next_step="")


def fill(bench: Bench, gigabytes: float) -> None:
    """Make the tables and their rows, once the server is there."""
    container = bench.database.container
    ready = ("docker", "exec", container, "pg_isready", "--quiet", "--host=127.0.0.1")
    while not ask(ready, deadline=30).ok:
        time.sleep(0.2)
    scale = str(max(1, round(ACCOUNTS * gigabytes)))
    accounts = ("pgbench", "-q", "-i", "-s", scale, "-U", "owner", "live")
    must(("docker", "exec", container, *accounts), deadline=LONG, next_step="")
    given = {
        "words": " ".join(WORDS.split()),
        "events": round(EVENTS * gigabytes),
        "readings": round(READINGS * gigabytes),
    }
    bench.sql(FILL, "live", *(word for name in given for word in ("-v", f"{name}={given[name]}")))


@dataclass(frozen=True)
class Way:
    """A way to do something, how long it took each time, and the bytes it makes."""

    name: str
    seconds: tuple[float, ...]
    bytes: int = 0

    @property
    def middle(self) -> float:
        """Return the median."""
        return statistics.median(self.seconds)

    def told(self, *beside: Way) -> str:
        """Return a line about it, with its share of what others took."""
        shares = "".join(f"{self.middle / other.middle:>9.2f}" for other in beside)
        size = f"{self.bytes / 1e6:>9,.0f} MB" if self.bytes else " " * 12
        each = " ".join(f"{value:.1f}" for value in self.seconds)
        return f"  {self.name:<42}{self.middle:>8.2f} s{shares}{size}   ({each})"


def backed_up(bench: Bench) -> tuple[float, Backup]:
    """Take a backup; return the seconds, and the backup."""
    taken: list[Backup] = []
    at = datetime.now(UTC)
    seconds = bench.ours(
        lambda: taken.append(backup.take(bench.database, Origin(), at, lambda _text: None))
    )
    return seconds, taken[0]


def one_round(bench: Bench) -> dict[str, tuple[float, int]]:
    """Do everything once; return the seconds and the bytes of each."""
    here, there = bench.folder / "here.sql.gz", bench.folder / "there.sql.gz"
    found = {
        "gzip here": (bench.typed(GZIP_HERE, here), here.stat().st_size),
        "gzip there": (bench.typed(GZIP_THERE, there), there.stat().st_size),
        "nowhere here": (bench.typed(NOWHERE_HERE, here), 0),
        "nowhere there": (bench.typed(NOWHERE_THERE, here), 0),
    }
    seconds, taken = backed_up(bench)
    found["backup"] = (seconds, taken.bytes)

    bench.sql("create database plain template template0;")
    found["psql"] = (bench.typed(PSQL, here, "plain"), 0)
    bench.sql("drop database plain;")
    found["beside"] = (bench.ours(lambda: beside(bench, taken)), 0)
    bench.sql("drop database beside;")
    pair = restore.pair_of(bench.database, datetime.now(UTC))
    found["swapped"] = (bench.ours(lambda: swapped(bench, pair, taken)), 0)
    bench.sql(f"drop database {pair.old};")
    backup.prune(bench.database.host, (taken,))
    return found


def beside(bench: Bench, taken: Backup) -> None:
    """Restore into a new database."""
    restore.beside(bench.database, taken.name, "beside", datetime.now(UTC), lambda _text: None)


def swapped(bench: Bench, pair: restore.Pair, taken: Backup) -> None:
    """Restore, and put the database in the place of the live one."""
    restore.swap_in(bench.database, pair, taken.path, taken, lambda _text: None)


def main(gigabytes: float, rounds: int) -> None:
    """Measure and print."""
    with made(gigabytes) as bench:
        size = int(bench.sql("select pg_database_size('live');"))
        say(f"{IMAGE}, a database of {size / 1e9:.2f} GB, {os.cpu_count()} CPUs, {rounds} rounds")
        found = []
        for number in range(rounds):
            found.append(one_round(bench))
            load = " ".join(f"{value:.1f}" for value in os.getloadavg())
            times = ", ".join(f"{name} {seconds:.1f}" for name, (seconds, _) in found[-1].items())
            say(f"  round {number + 1}: {times} (load {load})")

    def way(key: str, name: str) -> Way:
        return Way(name, tuple(item[key][0] for item in found), found[0][key][1])

    first = way("gzip here", "1 pg_dump | gzip")
    second = way("nowhere here", "2 pg_dump > /dev/null")
    third = way("nowhere there", "3 the same, all in the container")
    fourth = way("gzip there", "  pg_dump | gzip, all in the container")
    say("backup: medians, and their share of 1, 2 and 3")
    for item in (first, second, third, fourth, way("backup", "  inv backup, all checks")):
        say(item.told(first, second, third))
    plain = way("psql", "4 zcat | psql -1")
    say("restore: medians, and their share of 4")
    for item in (
        plain,
        way("beside", "  inv restore --as, all checks"),
        way("swapped", "  inv restore, without its safety backup"),
    ):
        say(item.told(plain))


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else GB,
        int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS,
    )
