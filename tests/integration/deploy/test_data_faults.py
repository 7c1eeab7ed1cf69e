"""Every trouble that a backup or a restore may meet: no row is lost, nothing bad passes for good.

What happens in the middle of a dump happens there each time: the stream is held until it has.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.command import Command
from deploy.host import Process
from deploy.outcome import DataFailed
from deploy.postgres import access, backup, dump, restore, statements
from deploy.postgres.access import Database
from deploy.postgres.restore import Pair
from deploy.postgres.retention import Rule, to_delete
from tests.support.agent import eventually
from tests.support.container import EACH_VERSION, IMAGES, SECRET, docker, serving, sql
from tests.support.disk import small_disk
from tests.support.dumps import AT, SCHEMA, back_up, content, databases, files, put, quiet, restored

pytestmark = pytest.mark.slow

# Stands in for docker: of a dump it lets the first bytes through, and the rest when told to.
HELD = """#!/bin/sh
case "$*" in *pg_dump*) ;; *) exec {docker} "$@" ;; esac
mkfifo {folder}/pipe
{docker} "$@" >{folder}/pipe &
(
  head -c 100000
  : >{folder}/held
  until [ -e {folder}/go ]; do sleep 0.01; done
  [ -e {folder}/cut ] || exec cat
) <{folder}/pipe
[ -e {folder}/cut ] || wait $!
"""
# More than what the pipes between a container and us take up by themselves.
MUCH = """
create extension pgcrypto;
create table much (id int primary key, word text);
insert into much select n, encode(gen_random_bytes(1000), 'hex') from generate_series(1, 12000) n;
"""
KILL = """
until [ -e /tmp/kill ]; do sleep 0.05; done
rm /tmp/kill
for process in /proc/[0-9]*; do
  if [ "$(cat "$process/comm")" = pg_dump ]; then kill -s KILL "${process#/proc/}"; fi
done
"""
END = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pg_dump'"


@contextmanager
def held(database: Database, folder: Path, trouble: Callable[[], object]) -> Iterator[None]:
    """Hold each dump in its middle until the trouble has been made."""
    folder.mkdir()
    real = shutil.which("docker")
    (folder / "docker").write_text(HELD.format(docker=real, folder=folder))
    (folder / "docker").chmod(0o755)

    def make() -> None:
        eventually((folder / "held").exists)
        try:
            trouble()
        finally:
            (folder / "go").touch()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as other:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        made = other.submit(make)
        yield
        made.result(timeout=60)


def refused(database: Database, folder: Path, trouble: Callable[[], object]) -> str:
    """See a backup fail by a trouble in its middle, and spare the one before; return why."""
    kept = files(database)
    with held(database, folder, trouble), pytest.raises(DataFailed) as caught:
        back_up(database, AT + timedelta(hours=1))
    assert caught.value.code == 9
    assert files(database) == kept
    (only,) = backup.listing(database.host, database.folder)
    assert only.state == "good"
    assert dump.inspect(database, only.path, 0, quiet).sha256 == only.sha256
    return caught.value.why


def test_a_held_dump_is_a_good_one(filled: Database, tmp_path: Path) -> None:
    sql(filled.container, MUCH)
    with held(filled, tmp_path / "held", lambda: None):
        assert back_up(filled, AT).rows == 12241


def kill(container: str) -> None:
    # By a file: while it waits for the reader of one stream, the engine starts nothing else.
    sql(container, "copy (select) to '/tmp/kill'", "postgres")
    there = "select count(*) from pg_stat_activity where application_name = 'pg_dump'"
    eventually(lambda: sql(container, there, "postgres") == "0")


@EACH_VERSION
@pytest.mark.parametrize(
    ("how", "says"),
    [("killed", "exit code 137"), ("ended", "pg_dump: error"), ("cut", "unexpected end")],
)
def test_a_dump_that_ends_early_is_no_backup(
    filled: Database, tmp_path: Path, how: str, says: str
) -> None:
    back_up(filled, AT)
    sql(filled.container, MUCH)
    before = content(filled)
    docker("exec", "--detach", filled.container, "sh", "-c", KILL if how == "killed" else ":")
    troubles: dict[str, Callable[[], object]] = {
        "killed": lambda: kill(filled.container),
        "ended": lambda: sql(filled.container, END, "postgres"),
        "cut": (tmp_path / "held" / "cut").touch,
    }
    assert says in refused(filled, tmp_path / "held", troubles[how])
    assert content(filled) == before


def test_a_server_that_is_stopped_in_the_middle_is_no_backup(
    database: Database, tmp_path: Path
) -> None:
    with serving(IMAGES[0]) as name:
        stopped = replace(database, container=name)
        sql(name, SCHEMA)
        back_up(stopped, AT)
        sql(name, MUCH)
        why = refused(stopped, tmp_path / "held", lambda: docker("stop", "--time", "0", name))
        assert "exit code" in why


def test_a_disk_that_fills_up_in_the_middle_is_no_backup(filled: Database, tmp_path: Path) -> None:
    with small_disk(Path(filled.folder), "40m"):
        back_up(filled, AT)
        sql(filled.container, MUCH)
        hog = Path(filled.folder, "hog")

        def fill() -> None:
            with hog.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))

        kept = files(filled)
        with held(filled, tmp_path / "held", fill), pytest.raises(DataFailed) as caught:
            back_up(filled, AT + timedelta(hours=1))
        assert "No space left" in caught.value.why
        hog.unlink()
        assert files(filled) == kept


def test_a_disk_with_no_room_for_the_manifest_is_no_backup(filled: Database) -> None:
    kept = back_up(filled, AT)
    start = filled.host.start

    def full_at_the_end(command: Command) -> Process:
        if command.stdin and b'"sha256"' in command.stdin:
            command = replace(command, argv=("sh", "-c", "echo No space left on device; exit 1"))
        return start(command)

    full = replace(filled, host=replace(filled.host, start=full_at_the_end))
    with pytest.raises(DataFailed, match="could not be backed up"):
        back_up(full, AT + timedelta(hours=1))
    assert files(filled) == [kept.name, f"{kept.name}.json"]


def test_two_backups_at_once_are_two_good_ones(filled: Database) -> None:
    with ThreadPoolExecutor(2) as both:
        taken = list(both.map(lambda _: back_up(filled, AT), range(2)))
    found = backup.listing(filled.host, filled.folder)
    assert {item.name for item in taken} == {item.name for item in found}
    assert len(found) == 2
    for item in found:
        assert dump.inspect(filled, item.path, 0, quiet).sha256 == item.sha256
    assert len(files(filled)) == 4


def test_a_clock_that_goes_back_costs_no_backup(filled: Database) -> None:
    ahead, behind = back_up(filled, AT), back_up(filled, AT - timedelta(days=40))
    rule, now = Rule(14), AT - timedelta(days=40)
    for at in (now, now + timedelta(days=1), AT):
        found = backup.listing(filled.host, filled.folder)
        assert {item.name for item in found} == {ahead.name, behind.name}
        doomed = to_delete(found, rule, now=at, protected=frozenset({behind.name}))
        backup.prune(filled.host, doomed)
    before = content(filled)
    sql(filled.container, "delete from plain")
    restore.finish(filled, restored(filled, behind.name))
    assert content(filled) == before


def without_locks(text: bytes) -> bytes:
    return re.sub(rb"\\(un)?restrict \w+\n\n?", b"", text)


@EACH_VERSION
@pytest.mark.parametrize("how", ["as it is", "no lock", "no manifest"])
def test_a_whole_dump_comes_back(filled: Database, how: str) -> None:
    before = content(filled)
    taken = back_up(filled, AT)
    name = taken.name
    if how == "no manifest":
        Path(f"{taken.path}.json").unlink()
    if how == "no lock":
        text = without_locks(gzip.decompress(Path(taken.path).read_bytes()))
        assert b"restrict" not in text
        name = put(filled, "older.sql", text)
    sql(filled.container, "drop table plain; delete from parts")
    restore.finish(filled, restored(filled, name))
    assert content(filled) == before
    assert databases(filled) == "live postgres"


ELSEWHERE = b"\\connect live\ndelete from parts;\ndrop table plain;\n"
# So much that the first of it is with psql before the last of it has left us.
FOLLOWS = b"".join(b"-- %s\n" % os.urandom(500).hex().encode() for _ in range(3000))


def within(text: bytes, what: bytes) -> bytes:
    return text.replace(b"\nSET lock", b"\n" + what + b"SET lock", 1)


BAD: dict[str, Callable[[bytes], bytes]] = {
    "a row short": lambda text: text[: text.rindex(b"\n7\t") + 1],
    "at a row's end": lambda text: text[: text.index(b"\n5\t") + 1],
    "no trailer": lambda text: text[: text.rindex(b"--\n-- PostgreSQL database dump complete")],
    "leads elsewhere at once": lambda text: ELSEWHERE + text,
    "leads elsewhere early": lambda text: text.replace(b"\nSET lock", b"\n" + ELSEWHERE + b"SET l"),
    "leads elsewhere before much else": lambda text: ELSEWHERE + FOLLOWS + text,
    "leads elsewhere late": lambda text: text + ELSEWHERE,
    "leads elsewhere behind a statement": lambda text: within(text, b"SELECT 1; " + ELSEWHERE),
    "leads elsewhere after a shell": lambda text: within(text, b"\\! true\nSELECT 1; " + ELSEWHERE),
    "unlocks itself": lambda text: within(
        text.replace(b"dump\n--\n\n", b"dump\n--\n\n\\restrict k3y\n", 1) + b"\\unrestrict k3y\n\n",
        b"\\unrestrict k3y\nSELECT 1; " + ELSEWHERE,
    ),
    "leads elsewhere in what looks like rows": lambda text: within(
        text,
        b"SELECT length($$\n-- Data for Name: x; Type: TABLE DATA; \n--\n\n"
        b"COPY x FROM stdin;\n$$);\n"
        b"SELECT 1; " + ELSEWHERE + b"SELECT length($$\n\\.\n$$);\n",
    ),
    "leads elsewhere in short": lambda text: text + ELSEWHERE.replace(b"connect", b"c"),
}


@pytest.mark.parametrize("how", sorted(BAD))
def test_what_is_no_whole_dump_loses_no_row(filled: Database, how: str) -> None:
    taken = back_up(filled, AT)
    before = content(filled)
    text = without_locks(gzip.decompress(Path(taken.path).read_bytes()))
    damaged = BAD[how](text)
    assert damaged != text
    for name, data in (("bad.sql", damaged), ("bad.sql.gz", gzip.compress(damaged))):
        with pytest.raises(DataFailed) as caught:
            restore.swap_in(
                filled, Pair("restore_1", "before_1"), put_at(filled, name, data), None, quiet
            )
        assert caught.value.code == 9
        assert content(filled) == before
    assert databases(filled) == "live postgres"


# Stands in for psql: as it was before it knew a lock.
OLD = r"""
printf '%s\n' '#!/bin/sh' 'real=$(ls /usr/lib/postgresql/*/bin/psql)' \
  'case "$*" in *"-f -"*) sed "s/^.restrict /\\\\unknown /" | $real "$@"; exit ;; esac' \
  'exec $real "$@"' >/usr/local/sbin/psql
chmod 755 /usr/local/sbin/psql
"""


@pytest.fixture
def old(filled: Database) -> Iterator[Database]:
    docker("exec", filled.container, "sh", "-c", OLD)
    yield filled
    docker("exec", filled.container, "rm", "/usr/local/sbin/psql")


@pytest.mark.parametrize("how", sorted(BAD))
def test_nor_does_it_where_psql_knows_no_lock(old: Database, how: str) -> None:
    test_what_is_no_whole_dump_loses_no_row(old, how)


def test_where_psql_knows_no_lock_a_dump_comes_back(old: Database) -> None:
    before = content(old)
    text = without_locks(gzip.decompress(Path(back_up(old, AT).path).read_bytes()))
    restore.finish(old, restored(old, put(old, "theirs.sql", text)))
    assert content(old) == before


# Stands in for psql: the server does what it is asked to, and its answer is lost.
DEAF = r"""
printf '%s\n' '#!/bin/sh' 'real=$(ls /usr/lib/postgresql/*/bin/psql)' 'text=$(cat)' \
  'printf "%s\n" "$text" | $real "$@"; code=$?' \
  'case "$text" in *pg_terminate_backend*) exit 2 ;; esac' 'exit $code' >/usr/local/sbin/psql
chmod 755 /usr/local/sbin/psql
"""


def test_a_swap_whose_answer_is_lost_is_one(filled: Database) -> None:
    pair = restore.pair_of(filled, AT)
    sql(filled.container, f"create database {pair.new} template live", "postgres")
    sql(filled.container, "delete from plain where id > 100", pair.new)
    then = content(filled, pair.new)
    docker("exec", filled.container, "sh", "-c", DEAF)
    try:
        restore._swap(filled, pair)
    finally:
        docker("exec", filled.container, "rm", "/usr/local/sbin/psql")
    assert content(filled) == then
    seen_to(filled, {then})


FUNCTION = """
create function commands() returns text language sql as $$ select '
{}
' $$
"""
# Without a lock of its own a dump must not look as if it led elsewhere.
COMMANDS = {
    "its own": FUNCTION.format("\\connect other\n\\! id\n\\unrestrict x"),
    "ours": FUNCTION.format("\\! id\n\\copy x from y"),
}


@EACH_VERSION
@pytest.mark.parametrize("lock", ["its own", "ours"])
def test_a_function_that_holds_what_looks_like_a_command_comes_back(
    filled: Database, lock: str
) -> None:
    sql(filled.container, COMMANDS[lock])
    before = sql(filled.container, "select prosrc from pg_proc where proname = 'commands'")
    name = back_up(filled, AT).name
    if lock == "ours":
        text = gzip.decompress(Path(filled.folder, name).read_bytes())
        name = put(filled, "older.sql", without_locks(text))
    restore.finish(filled, restored(filled, name))
    after = sql(filled.container, "select prosrc from pg_proc where proname = 'commands'")
    assert after == before != ""


def put_at(database: Database, name: str, data: bytes) -> str:
    return f"{database.folder}/{put(database, name, data)}"


def test_where_the_safety_backup_fails_nothing_is_restored(
    filled: Database, tmp_path: Path
) -> None:
    aside = tmp_path / "aside.sql.gz"
    shutil.copy(back_up(filled, AT).path, aside)
    sql(filled.container, "delete from plain where id > 100")
    before = content(filled)
    elsewhere = replace(filled, folder=str(tmp_path / "full"))
    with small_disk(Path(elsewhere.folder)):
        with pytest.raises(DataFailed, match="could not be backed up") as caught:
            restored(elsewhere, str(aside))
        assert files(elsewhere) == []
    assert caught.value.code == 9
    assert content(filled) == before
    assert databases(filled) == "live postgres"


def test_the_oldest_backup_is_there_after_its_restore(filled: Database) -> None:
    oldest, newer = back_up(filled, AT - timedelta(days=90)), back_up(filled, AT)
    done = restored(filled, oldest.name)
    restore.finish(filled, done)
    names = {item.name for item in backup.listing(filled.host, filled.folder)}
    assert names == {oldest.name, newer.name, done.safety.name}


def seen_to(filled: Database, either: set[str]) -> str:
    """Settle what a restore has left, and see one of two databases live, whole and alone."""
    restore.clean_up(filled, AT, quiet)
    assert databases(filled) == "live postgres"
    found = content(filled)
    assert found in either
    assert restore.clean_up(filled, AT, quiet) == ""
    return found


@pytest.mark.parametrize(("ending", "first"), [("finish", 4), ("undo", 13)])
def test_a_kill_between_any_two_steps_leaves_one_whole_database(
    filled: Database, ending: str, first: int
) -> None:
    taken = back_up(filled, AT)
    then, seen = content(filled), set[str]()
    for step in itertools.count(first):
        sql(filled.container, "insert into plain (word) values ('later')")
        now = content(filled)
        words = (str(step), ending, filled.container, filled.folder, taken.name)
        done = subprocess.run(
            (sys.executable, "-m", "tests.support.killed", *words), timeout=60, check=False
        )
        seen.add("then" if seen_to(filled, {now, then}) == then else "now")
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert step >= 14
    assert seen == {"now", "then"}


# The server ends a session that has lost its client; an open transaction is rolled back.
STEPS = {name: getattr(statements, name).strip() for name in ("SWAP", "SWAP_BACK", "REOPEN")}
ENDS = re.compile(r"(?:;|\\gexec)$", re.MULTILINE)
CUT = [(name, end.end()) for name, text in STEPS.items() for end in ENDS.finditer(text)]


@pytest.mark.parametrize(("step", "end"), CUT)
def test_a_kill_within_a_step_leaves_one_whole_database(
    filled: Database, step: str, end: int
) -> None:
    pair = restore.pair_of(filled, AT)
    now = content(filled)
    sql(filled.container, f"create database {pair.new} template live", "postgres")
    sql(filled.container, "delete from plain where id > 100", pair.new)
    then = content(filled, pair.new)
    before = {
        "SWAP": (statements.CLOSE,),
        "SWAP_BACK": (statements.CLOSE, statements.SWAP),
        "REOPEN": (statements.CLOSE, statements.SWAP, statements.CLOSE),
    }
    for text in (*before[step], STEPS[step][:end]):
        filled.host.ask(restore.sql(filled, "maintenance", text, pair))
    seen_to(filled, {now, then})


@EACH_VERSION
def test_no_secret_is_in_the_words_of_any_program(filled: Database) -> None:
    found, ended = set[str](), threading.Event()

    def look() -> None:
        while not ended.is_set():
            for process in Path("/proc").iterdir():  # a glob fails when one ends meanwhile
                with suppress(OSError):
                    words = (process / "cmdline").read_bytes()
                    found.add(words.replace(b"\0", b" ").decode(errors="replace"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        taken = back_up(filled, AT)
        restore.undo(filled, restored(filled, taken.name))
    finally:
        ended.set()
        watcher.join()
    ours = [words for words in found if filled.container in words]
    assert any("pg_dump" in words for words in ours)
    assert any("psql" in words for words in ours)
    # Other tests may start a server meanwhile, and tell it so.
    told = [words for words in found if SECRET in words]
    assert not [words for words in told if not words.startswith("docker run --detach --name")]
    assert SECRET not in filled.host.log.take().decode()


@pytest.mark.parametrize("name", ["a=b", "postgres://x"])
def test_a_name_that_looks_like_an_address_is_a_name(database: Database, name: str) -> None:
    with serving(IMAGES[0], name) as container:
        odd = replace(database, container=container)
        odd.host.ask(access.query(container, SCHEMA))
        taken = back_up(odd, AT)
        odd.host.ask(access.query(container, "delete from plain"))
        done = restored(odd, taken.name)
        restore.finish(odd, done)
        assert done.rows_after == 241
        assert odd.host.ask(access.query(container, "select count(*) from plain")) == "204\n"
