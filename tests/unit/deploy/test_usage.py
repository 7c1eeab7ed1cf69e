"""Command lines: words that may be left out, numbers that are none, and what to type next."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.exceptions import ParseError
from invoke.parser import parser
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from deploy.backups import days
from deploy.called import VERBS, as_called
from deploy.outcome import Invalid
from deploy.usage import Machine

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "ParseMachine", Machine)


def tasks() -> list[ParserContext]:
    logs = [
        Argument(names=("name", "n"), default="", positional=True),
        Argument(names=("follow", "f"), kind=bool, default=False),
        Argument(names=("lines", "l"), kind=int, default=100),
        Argument(name="wait", kind=float, default=0.0),
    ]
    restore = [Argument(name="file", positional=True), Argument(name="to", default="")]
    copy = [Argument(name="what", positional=True), *logs[:1]]
    return [
        ParserContext("logs", args=logs),
        ParserContext("restore", args=restore),
        ParserContext("copy", args=copy),
        ParserContext("deploy"),
    ]


def core() -> ParserContext:
    return ParserContext(args=[Argument(names=("help", "h"), optional=True)])


def parsed(line: str) -> list[tuple[str | None, dict[str, object]]]:
    found = parser.Parser(tasks(), initial=core()).parse_argv(line.split())
    return [(item.name, item.as_kwargs) for item in found[1:]]


@pytest.mark.parametrize(
    ("line", "name", "follow", "lines"),
    [
        ("logs", "", False, 100),
        ("logs deploy", "deploy", False, 100),
        ("logs -f deploy", "deploy", True, 100),
        ("logs deploy -f", "deploy", True, 100),
        ("logs --lines 5 deploy", "deploy", False, 5),
        ("logs --lines=5 -f deploy", "deploy", True, 5),
        ("logs -l5 deploy", "deploy", False, 5),
        ("logs --name deploy", "deploy", False, 100),
        ("logs --name=deploy -f", "deploy", True, 100),
        ("logs -n deploy", "deploy", False, 100),
        ("logs logs", "logs", False, 100),
    ],
)
def test_a_word_that_may_be_left_out(line: str, name: str, lines: int, *, follow: bool) -> None:
    ((task, found),) = parsed(line)
    assert task == "logs"
    assert (found["name"], found["follow"], found["lines"]) == (name, follow, lines)


def test_a_second_word_is_the_next_task_as_ever() -> None:
    assert [name for name, _ in parsed("logs app deploy")] == ["logs", "deploy"]
    assert [name for name, _ in parsed("deploy logs app")] == ["deploy", "logs"]
    assert [name for name, _ in parsed("logs --name app deploy")] == ["logs", "deploy"]


def test_a_word_that_must_be_there_comes_first() -> None:
    assert parsed("restore deploy") == [("restore", {"file": "deploy", "to": ""})]
    assert parsed("copy a b")[0][1] == {"what": "a", "name": "b"}
    with pytest.raises(ParseError, match="did not receive required positional arguments: 'what'"):
        parsed("copy")


@pytest.mark.parametrize("line", ["restore --help", "copy -h", "logs --help", "deploy --help"])
def test_help_is_no_word_that_must_be_there(line: str) -> None:
    words = line.split()
    found = parser.Parser(tasks(), initial=core()).parse_argv(words)
    assert found[0].args["help"].value == line.partition(" ")[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("restore --json", "No idea what '--json' is!"),
        ("copy a --json", "No idea what '--json' is!"),
        ("logs --lines abc", "--lines must be a whole number, not 'abc'"),
        ("logs -l 1.5", "--lines must be a whole number, not '1.5'"),
        ("logs --wait soon", "--wait must be a number, not 'soon'"),
        ("logs --lines " + "9" * 5000, "--lines must be a whole number, not '9999"),
        ("logs --nothing", "No idea what '--nothing' is!"),
        ("logs app nothing", "No idea what 'nothing' is!"),
    ],
)
def test_what_makes_no_sense_is_named(line: str, says: str) -> None:
    with pytest.raises(ParseError, match=re.escape(says)):
        parsed(line)


@pytest.mark.parametrize(
    ("text", "inv", "fab"),
    [
        ("inv status", "inv status --host vps", "fab -H vps status"),
        (
            "inv restore F.sql.gz --yes",
            "inv restore --host vps F.sql.gz --yes",
            "fab -H vps restore F.sql.gz --yes",
        ),
        (
            "inv status; inv logs; docker ps",
            "inv status --host vps; inv logs --host vps; docker ps",
            "fab -H vps status; fab -H vps logs; docker ps",
        ),
        (
            "inv unlock shows it; inv unlock --yes ends it",
            "inv unlock --host vps shows it; inv unlock --host vps --yes ends it",
            "fab -H vps unlock shows it; fab -H vps unlock --yes ends it",
        ),
        (
            "set it, or: inv backup.schedule --at 03:30",
            "set it, or: inv backup.schedule --host vps --at 03:30",
            "set it, or: fab -H vps backup.schedule --at 03:30",
        ),
        ("see inv history.", "see inv history --host vps.", "see fab -H vps history."),
        (
            "inv logs --host a; inv deploy",
            "inv logs --host a; inv deploy --host vps",
            "inv logs --host a; fab -H vps deploy",
        ),
        *[(text, text, text) for text in ("", "inv build", "inv sandbox.up", "inv --list", "x")],
        *[(text, text, text) for text in ("inv deployment", "inv status-page", "minv status")],
        *[(text, text, text) for text in ("fab -H HOST VERB", "ssh vps true")],
    ],
)
def test_what_to_type_next_is_for_the_same_host(text: str, inv: str, fab: str) -> None:
    assert as_called(text, "inv", "") == text
    assert as_called(text, "inv", "vps") == inv
    assert as_called(text, "fab", "vps") == fab


TEXTS = st.lists(st.sampled_from([*VERBS, "inv ", "inv", "; ", ", ", " ", "--host a", "x"]))


@given(TEXTS, st.sampled_from(["vps", "ann@vps:2222", "[::1]"]))
def test_nothing_but_the_host_is_added_and_only_once(words: list[str], host: str) -> None:
    text = "".join(words)
    shown = as_called(text, "inv", host)
    quoted = "'[::1]'" if host == "[::1]" else host
    assert shown.replace(f" --host {quoted}", "") == text
    assert as_called(shown, "inv", host) == shown
    assert not re.search(rf"\binv ({'|'.join(VERBS)})(?![\w-])(?!.*--host)", shown)
    assert as_called(text, "inv", "") == text


def test_every_verb_that_takes_a_host_is_known() -> None:
    for node in ast.walk(ast.parse((ROOT / "tasks.py").read_text())):
        if isinstance(node, ast.FunctionDef) and "host" in [arg.arg for arg in node.args.args]:
            assert node.name.partition("_")[0] in VERBS


@pytest.mark.parametrize("text", ["1", "14", "36500", "007"])
def test_days_that_make_sense(text: str) -> None:
    assert days(text) == int(text)


@pytest.mark.parametrize(
    "text", ["0", "-1", "36501", "99999999999", "9" * 5000, "abc", "1.5", "1e3", " 1", "²", "٣", ""]
)
def test_days_that_make_none(text: str) -> None:
    with pytest.raises(Invalid, match="--keep must be a number of days, at least 1 and at most"):
        days(text)
