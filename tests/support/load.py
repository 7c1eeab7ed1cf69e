"""pgbench at 200 transactions a second, and somebody who knocks at the database all the time."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2

from tests.support.agent import eventually
from tests.support.container import SECRET, address, docker, sql

# A run whose session is ended or refused fails; the next begins at once, as an application would.
TRAFFIC = """
rm -f /tmp/stop
while [ ! -e /tmp/stop ]; do
  echo "began $(date +%s.%N)"
  pgbench --no-vacuum --rate=200 --client=8 --jobs=2 --time=2 --username=owner live 2>&1
  echo "ended with $? at $(date +%s.%N)"
done
"""
RUN = re.compile(r"began ([\d.]+)\n(.*?)ended with (\d+) at ([\d.]+)\n", re.DOTALL)
SUMS = """
select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
  (select sum(bbalance) from pgbench_branches), coalesce(sum(delta), 0), count(*)
from pgbench_history
"""
PAUSE = 0.02  # seconds between two knocks


@dataclass(frozen=True)
class Run:
    """A run of pgbench: when, how it ended, what it said."""

    began: float
    said: str
    code: int
    ended: float

    def number(self, of: str) -> int:
        """Return one of the numbers that pgbench reports."""
        found = re.search(rf"number of {of}: (\d+)", self.said)
        assert found, self.said
        return int(found[1])


@dataclass(frozen=True)
class Knock:
    """An attempt to connect."""

    at: float
    answered: float
    refused: str


def bank(container: str) -> None:
    """Fill the database with what pgbench works on."""
    docker("exec", container, "pgbench", "-q", "-i", "-s", "5", "-U", "owner", "live")


def balance(container: str, name: str = "live") -> int:
    """See that the sum of balances holds; return how many transactions made it."""
    *sums, count = sql(container, SUMS, name).split("|")
    assert len(set(sums)) == 1, sums
    return int(count)


@contextlib.contextmanager
def traffic(container: str) -> Iterator[list[Run]]:
    """Let pgbench run from before the block to its end; the list has its runs afterwards."""
    runs: list[Run] = []
    words = ("docker", "exec", container, "sh", "-c", TRAFFIC)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: balance(container) > 0)
            yield runs
        finally:
            docker("exec", container, "touch", "/tmp/stop")
            said = process.communicate(timeout=30)[0]
    runs += (Run(float(m[1]), m[2], int(m[3]), float(m[4])) for m in RUN.finditer(said))


@contextlib.contextmanager
def knocking(container: str) -> Iterator[list[Knock]]:
    """Connect to the database every 20 ms until the block ends."""
    knocks: list[Knock] = []
    over = threading.Event()
    given = f"host={address(container)} user=owner password={SECRET} dbname=live"

    def knock() -> None:
        while not over.wait(PAUSE):
            at, refused = time.monotonic(), ""
            try:
                psycopg2.connect(given, connect_timeout=5).close()
            except psycopg2.OperationalError as error:
                refused = str(error)
            knocks.append(Knock(at, time.monotonic(), refused))

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield knocks
    finally:
        over.set()
        thread.join()


def longest_refusal(knocks: list[Knock]) -> float:
    """Return the longest time from a knock that was refused to the answer of one that was not."""
    longest, since = 0.0, None
    for knock in knocks:
        if knock.refused:
            since = since or knock.at
        elif since:
            longest, since = max(longest, knock.answered - since), None
    assert since is None, "the last one was still refused"
    return longest
