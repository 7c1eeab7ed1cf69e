"""Secrets in texts, environment files, commands, failures and the log."""

from __future__ import annotations

import io
import json
import shlex
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import outcome
from deploy.command import command, script
from deploy.dotenv import fill_in, parse_env, write_env
from deploy.log import RunLog
from deploy.outcome import Exit, Failure, Invalid, failure_of
from deploy.redact import MASK, Redactor, secret_values

PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8).filter(
    lambda text: MASK not in text and not set(text) <= set("*")
)
TOKEN = "123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"


@given(SECRETS, PRINTABLE, PRINTABLE)
def test_a_known_secret_survives_in_no_form(secret: str, before: str, after: str) -> None:
    redactor = Redactor().with_values((secret,))
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        assert form not in redactor.mask(f"{before} {form} {after}")


@given(SECRETS, SECRETS)
def test_a_secret_inside_another_does_not_uncover_it(one: str, two: str) -> None:
    both = one + two
    redactor = Redactor().with_values((one,)).with_values((both,))
    assert redactor.mask(f"<{both}>") == f"<{MASK}>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://api.telegram.org/bot{TOKEN}/getMe", f"https://api.telegram.org/bot{MASK}/getMe"),
        ("postgresql://ann:pa55word@db:5432/x", f"postgresql://ann:{MASK}@db:5432/x"),
        ("POSTGRES_PASSWORD=pa55word next", f"POSTGRES_PASSWORD={MASK} next"),
        ("{'API_TOKEN': 'abc'}", f"{{'API_TOKEN': '{MASK}'}}"),
        ("export SECRET=x", f"export SECRET={MASK}"),
        ("nothing to hide, 12:30, a:b@c", "nothing to hide, 12:30, a:b@c"),
        ("https://github.com/a/b", "https://github.com/a/b"),
    ],
)
def test_secrets_are_known_by_their_look(text: str, shown: str) -> None:
    assert Redactor().mask(text) == shown


def test_a_whole_document_is_masked_and_keeps_its_shape() -> None:
    redactor = Redactor().with_values(("hunter22",))
    found = redactor.mask_all({"a": ["hunter22", 3, None, 1.5, True], "b": {"c": "x hunter22"}})
    assert found == {"a": [MASK, 3, None, 1.5, True], "b": {"c": f"x {MASK}"}}


def test_values_are_secret_by_the_name_of_their_variable() -> None:
    environ = {
        "MY_TOKEN": "token-value",
        "API_TOKENS": "several",
        "TOKENS_PER_DAY": "100000",
        "DATABASE_URL": "postgresql://u:p%40ss@host/db?password=in%20query&sslmode=require",
        "HOME": "/home/ann",
        "ODD_URL": "http://[broken",
        "EMPTY_SECRET": "",
    }
    found = secret_values(environ)
    assert set(found) >= {"token-value", "several", "p%40ss", "p@ss", "in query", "http://[broken"}
    assert not {"100000", "host", "/home/ann", "u", "require"} & set(found)


def test_short_values_do_not_shred_the_text() -> None:
    assert Redactor().with_values(("a", "", "on")).mask("a man on a boat") == "a man on a boat"


VARIABLES = st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True), PRINTABLE)


@given(VARIABLES)
def test_an_environment_file_reads_back_as_it_was_written(variables: dict[str, str]) -> None:
    assert parse_env(write_env(variables).decode()) == variables


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b ", "b"),
        ("export A=b", "b"),
        ("A=b # c", "b"),
        ("A=b#c", "b#c"),
        ("A='b # $c'", "b # $c"),
        ('A="b \\" c"', 'b " c'),
        ("A=", ""),
    ],
)
def test_a_line_of_an_environment_file(line: str, value: str) -> None:
    assert parse_env(f"# comment\n\n{line}\n") == {"A": value}


def test_a_line_that_is_none_is_named_by_its_number_alone() -> None:
    with pytest.raises(Invalid) as caught:
        parse_env("A=b\nhunter22\n", "/x/.env")
    assert caught.value.where == "/x/.env:2"
    assert "hunter22" not in caught.value.as_text()


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_what_fits_no_line_is_refused(value: str) -> None:
    with pytest.raises(Invalid) as caught:
        write_env({"A": value})
    assert value not in caught.value.as_text()


def test_an_example_is_filled_in() -> None:
    example = {"USER": "ann", "PASSWORD": "generate", "URL": "x://${USER}:${PASSWORD}@h", "N": ""}
    first, second = fill_in(example, {}), fill_in(example, {})
    assert len(first["PASSWORD"]) >= 30
    assert first["PASSWORD"] != second["PASSWORD"]
    assert first["URL"] == f"x://ann:{first['PASSWORD']}@h"
    assert fill_in(example, first) == first
    kept = {"PASSWORD": "mine ${USER}", "OTHER": "stays"}
    again = fill_in(example, kept)
    assert (again["PASSWORD"], again["OTHER"]) == ("mine ${USER}", "stays")


@given(st.lists(PRINTABLE.filter(lambda word: "\0" not in word), min_size=1))
def test_a_command_reaches_the_shell_word_for_word(words: list[str]) -> None:
    line = command(*words, deadline=2.5).wire()
    assert shlex.split(line) == ["timeout", "-k", "10", "3", *words, "</dev/null"]


def test_only_a_command_with_input_reads_any() -> None:
    assert command("cat").wire().endswith(" </dev/null")
    assert "</dev/null" not in command("cat", stdin=b"").wire()
    assert script("echo $1", "a b").argv[-2:] == ("deploy", "a b")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (outcome.TestsFailed, 1),
        (outcome.BuildFailed, 2),
        (outcome.DeployFailed, 3),
        (outcome.SmokeFailed, 3),
        (outcome.RolledBack, 4),
        (outcome.RollbackFailed, 5),
        (outcome.Busy, 6),
        (outcome.Invalid, 7),
        (outcome.Unreachable, 8),
        (outcome.DataFailed, 9),
        (outcome.Interrupted, 130),
        (outcome.Terminated, 143),
    ],
)
def test_each_failure_has_the_code_that_people_rely_on(kind: type[Failure], code: int) -> None:
    failure = kind("It broke", where="vps", why="because", next_step="inv status")
    assert failure.code == code
    assert failure.as_json() == {
        "error": "It broke: because",
        "code": code,
        "where": "vps",
        "next": "inv status",
    }
    assert failure.as_text() == "It broke [vps]\n  why:  because\n  next: inv status"


def test_anything_raised_becomes_a_failure() -> None:
    assert failure_of(KeyboardInterrupt()).code == Exit.INTERRUPTED
    assert failure_of(ZeroDivisionError("x")).code == Exit.DEPLOY
    known = Invalid("x")
    assert failure_of(known) is known


class Broken(io.StringIO):
    """A terminal that is gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


def lines(log: RunLog) -> list[str]:
    return [line.partition(" ")[2] for line in log.take().decode().splitlines()]


def test_the_log_is_masked_and_taken_once() -> None:
    terminal = io.StringIO()
    log = RunLog(Redactor().with_values(("hunter22",)), terminal)
    log.say("a hunter22")
    log.write("b\nc")
    assert lines(log) == [f"a {MASK}", "b", "c"]
    assert log.take() == b""
    assert terminal.getvalue() == f"a {MASK}\n"


def test_a_secret_that_is_learnt_late_is_masked_in_what_is_not_stored_yet() -> None:
    log = RunLog(Redactor(), io.StringIO())
    log.write("the password is hunter22")
    log.learn(("hunter22",))
    assert lines(log) == [f"the password is {MASK}"]


def test_a_closed_terminal_ends_nothing() -> None:
    log = RunLog(Redactor(), Broken())
    log.say("still here")
    log.show("line")
    assert lines(log) == ["still here"]


def test_documents_of_failures_are_plain() -> None:
    found: dict[str, Any] = Failure("x").as_json()
    assert json.loads(json.dumps(found)) == found
