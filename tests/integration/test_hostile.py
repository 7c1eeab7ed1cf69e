"""What somebody sends who is up to no good: nothing changes, and the agent still answers."""

from __future__ import annotations

import copy
import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2 import sql

from sandbox.bot_api import MASTER, BotApi
from server_agent import master
from tests.support import agent
from tests.support.agent import Running, eventually
from tests.support.postgres import query

pytestmark = pytest.mark.slow

STRANGER = 666
# What came in, and what changes by itself.
APART = ("telegram_updates", "scheduler_heartbeat")
SPITE = (
    "'; drop table approvals; -- \"'; update approvals set state = 'approved' where '1' = '1"
    "$$; delete from notices; $$ %s %(id)s {0} \\ ../../../../etc/passwd\0"
    "<script>alert(1)</script><b>&amp;</b><a href='x"
    "\ud800\u202e\ufeff\x1b[2J\r\nSet-Cookie: a=b"
)
EVIL = (SPITE, "9" * 400, "/approve 1; select pg_sleep(60)")
numbers = itertools.count(1)


@dataclass(frozen=True)
class Victim:
    """An agent that waits for the Master's word, and all that could be harmed.

    Args:
        press: The data of the button that approves the request that is open.
        late: The same of one that has expired.
    """

    running: Running
    database: str
    telegram: BotApi
    press: str
    late: str

    def content(self) -> dict[str, list[Any]]:
        """Return what is in the database, table by table."""
        with closing(psycopg2.connect(self.database)) as link, link.cursor() as found:
            found.execute("select tablename from pg_tables where schemaname = 'public'")
            tables = sorted(row[0] for row in found.fetchall())
            content = {}
            for table in tables:
                found.execute(sql.SQL("select * from {}").format(sql.Identifier(table)))
                content[table] = [] if table in APART else sorted(map(repr, found.fetchall()))
            return content

    def settled(self, update: int) -> bool:
        """Tell whether an update is done with."""
        with closing(psycopg2.connect(self.database)) as link, link.cursor() as found:
            found.execute("select state from telegram_updates where update_id = %s", (update,))
            row = found.fetchone()
            return row is not None and row[0] != "new"

    def stored(self) -> int:
        """Return how many updates are stored."""
        with closing(psycopg2.connect(self.database)) as link, link.cursor() as found:
            found.execute("select count(*) from telegram_updates")
            return int((found.fetchone() or (0,))[0])

    def take(self, *updates: dict[str, Any]) -> None:
        """Send updates, and wait until the last is done with."""
        for update in updates:
            last = next(numbers)
            assert self.running.send({"update_id": last, **update}).status_code == 200
        eventually(lambda: self.settled(last))


@pytest.fixture(scope="module")
def hurt(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Victim]:
    log = tmp_path_factory.mktemp("hurt") / "agent.log"
    # It proposes nothing of its own accord, however full this disk is.
    with agent.housed(postgres_url, template, log, DISK_FREE_PERCENT="0") as (
        found,
        telegram,
        database,
    ):
        press, late = asked(database, "web", 3600), asked(database, "mail", -1)
        eventually(lambda: query(database, "select 1 from notices where state = 'new'") == [])
        victim = Victim(found, database, telegram, press, late)
        yield victim
        victim.take(said("/help", int(MASTER)))
        assert telegram.texts()[-1].startswith("I look after this server.")


@pytest.fixture
def victim(hurt: Victim) -> Iterator[Victim]:
    """Whatever is done to it: in the end nothing has changed, and it works."""
    before = hurt.content()
    assert [len(before[table]) for table in ("approvals", "notices")] == [2, 2]
    yield hurt
    assert hurt.content() == before
    assert hurt.running.get().json()["status"] == "ok"
    assert "Traceback" not in hurt.running.output.read_text()


def asked(database: str, subject: str, seconds: float) -> str:
    """Ask the Master for something; return what the button sends that approves it."""
    with closing(psycopg2.connect(database)) as link, link.cursor() as found:
        number = master.ask(found, "question", subject, f"Shall I restart {subject}?", seconds)
        master.expire(found)
        found.execute("select digest from approvals where id = %s", (number,))
        digest = (found.fetchone() or ("",))[0]
        link.commit()
        return f"approve:{number}:{digest}"


def chat(number: Any) -> dict[str, Any]:
    return {"id": number, "type": "private", "first_name": "Eve"}


def said(text: Any, who: Any = STRANGER, kind: str = "message") -> dict[str, Any]:
    return {kind: {"message_id": 9, "date": 1, "chat": chat(who), "from": chat(who), "text": text}}


def pressed(data: Any, who: Any = STRANGER, where: Any = None, message: int = 1) -> dict[str, Any]:
    place = {
        "message_id": message,
        "chat": chat(who if where is None else where),
        "text": "Shall I?",
    }
    return {"callback_query": {"id": "7", "from": chat(who), "message": place, "data": data}}


ME = int(MASTER)
FORGED: dict[str, Callable[[Victim], dict[str, Any]]] = {
    "a stranger's press": lambda it: pressed(it.press),
    "a stranger's press in the Master's chat": lambda it: pressed(it.press, STRANGER, ME),
    "the Master's press in a stranger's chat": lambda it: pressed(it.press, ME, STRANGER),
    "a chat that is nearly his": lambda it: pressed(it.press, f"{ME} "),
    "a chat that is no number": lambda it: pressed(it.press, [ME]),
    "a chat that is a fraction": lambda it: pressed(it.press, float(ME)),
    "no chat": lambda it: {"callback_query": {**press_of(it), "message": {"message_id": 1}}},
    "no sender": lambda it: {"callback_query": {**press_of(it), "from": None}},
    "a message that is none": lambda it: {"callback_query": {**press_of(it), "message": [1]}},
    "the press inside a message": lambda it: {"message": pressed(it.press, ME)},
    "the press in a list": lambda it: {"callback_query": [press_of(it)]},
    "an old request": lambda it: pressed(it.late, ME),
    "another digest": lambda it: pressed(f"{it.press[:-16]}{'0' * 16}", ME),
    "another request's digest": lambda it: pressed(it.press[:-16] + it.late[-16:], ME),
    "half a digest": lambda it: pressed(it.press[:-8], ME),
    "no digest": lambda it: pressed(it.press[:-17], ME),
    "an empty digest": lambda it: pressed(it.press[:-16], ME),
    "a digest in capitals": lambda it: pressed(it.press.replace("approve", "APPROVE"), ME),
    "a line more": lambda it: pressed(f"{it.press}\n", ME),
    "a word more": lambda it: pressed(f"{it.press}:x", ME),
    "digits of another script": lambda it: pressed(it.press.replace(":1:", ":\u0661:"), ME),
    "a pattern for a digest": lambda it: pressed(f"{it.press[:-16]}{'%' * 16}", ME),
    "a number with a sign": lambda it: pressed(it.press.replace(":1:", ":+1:"), ME),
    "a number below all": lambda it: pressed(it.press.replace(":1:", ":-1:"), ME),
    "a number above all": lambda it: pressed(it.press.replace(":1:", f":{10**18 - 1}:"), ME),
    "a number that no column holds": lambda it: pressed(it.press.replace(":1:", f":{10**30}:"), ME),
    "64 bytes": lambda _: pressed("approve:1:".ljust(64, "a"), ME),
    "64 bytes of two each": lambda _: pressed("é" * 32, ME),
    "far more than 64 bytes": lambda it: pressed(it.press + "a" * 100_000, ME),
    "nothing": lambda _: pressed("", ME),
    "no text": lambda _: pressed(None, ME),
    "a list": lambda it: pressed([it.press], ME),
    "an object": lambda it: pressed({"data": it.press}, ME),
    "a stranger's command": lambda _: said("/approve 1"),
    "a stranger's edited command": lambda _: said("/approve 1", kind="edited_message"),
    "a command in a channel": lambda _: said("/approve 1", ME, "channel_post"),
    "a command that is a list": lambda _: said(["/approve 1"], ME),
    "an old request by its number": lambda _: said("/approve 2", ME),
    "two numbers": lambda _: said("/approve 1 1", ME),
    "a number and more": lambda _: said("/approve 1; drop table approvals", ME),
    "a fraction": lambda _: said("/approve 1.0", ME),
    "digits of another script by command": lambda _: said("/approve \u0661", ME),
    "a huge number": lambda _: said(f"/approve {'1' * 4000}", ME),
    "no number": lambda _: said("/approve", ME),
    "no slash": lambda _: said("approve 1", ME),
}


def press_of(it: Victim) -> dict[str, Any]:
    found: dict[str, Any] = pressed(it.press, ME)["callback_query"]
    return found


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_forged_word_decides_nothing(
    victim: Victim, forged: Callable[[Victim], dict[str, Any]]
) -> None:
    victim.take(forged(victim))


@pytest.mark.parametrize("who", [STRANGER, ME])
def test_a_text_is_a_text_wherever_it_stands(victim: Victim, who: int) -> None:
    for base in (said("/status", who), pressed("approve:1:0", who)):
        for path in paths(base):
            victim.take(*(replaced(base, path, evil) for evil in EVIL))
    victim.take(*({evil: {evil: evil}} for evil in EVIL))


def paths(value: Any, *before: str) -> Iterator[tuple[str, ...]]:
    """Return the way to each value in an update, and to what holds it."""
    if before:
        yield before
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], *before, key)


def replaced(update: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(update)
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


@pytest.mark.parametrize(
    "secret", ["", "x" * 60_000, "é" * 20, f"{agent.SECRET},{agent.SECRET}", agent.SECRET.upper()]
)
def test_who_does_not_know_the_secret_is_sent_away(victim: Victim, secret: str) -> None:
    before = victim.stored()
    update = {"update_id": next(numbers), **pressed(victim.press, ME)}
    found = victim.running.send(update, secret.encode().decode("latin-1"))
    assert (found.status_code, victim.stored()) == (403, before)


HEADER = f"X-Telegram-Bot-Api-Secret-Token: {agent.SECRET}"
GOOD = f"POST /webhook/telegram HTTP/1.1\r\nHost: a\r\n{HEADER}\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\xff\x16\x03\x01\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /webhook/telegram HTTP/1.1\r\nHost: a\r\n\r\n",
        b"BREW /webhook/telegram HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        f"{GOOD}Content-Length: -1\r\n\r\n{{}}".encode(),
        f"{GOOD}Content-Length: 99999999999999999999\r\n\r\n{{}}".encode() + b" " * 300_000,
        f"{GOOD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}".encode(),
        f"{GOOD}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n".encode(),
        f"{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode() + b"8000\r\n" + b"a" * 300_000,
        f"{GOOD}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
    ],
    ids=lambda raw: repr(raw[-40:]),
)
def test_what_is_hardly_http_is_survived(victim: Victim, raw: bytes) -> None:
    before = victim.stored()
    with connected(victim.running) as link:
        try:
            link.sendall(raw)
            head = link.recv(100).split(b"\r\n")[0]
        except ConnectionError:
            head = b""
    assert not head or int(head.split()[1]) < 500
    assert victim.stored() == before


def test_many_slow_bodies_and_lost_ones_hold_nobody_up(victim: Victim) -> None:
    before = victim.stored()
    begun = f'{GOOD}Content-Length: 1000\r\n\r\n{{"update_id": '.encode()
    with ExitStack() as links:
        for _ in range(100):
            links.enter_context(connected(victim.running)).sendall(begun)
        victim.take(said("/status", ME))
    assert victim.stored() == before + 1


def connected(running: Running) -> socket.socket:
    parts = urlsplit(running.url)
    return socket.create_connection((str(parts.hostname), parts.port or 80), timeout=10)
