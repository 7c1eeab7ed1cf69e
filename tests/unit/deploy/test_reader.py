"""What a dump says of itself, however it arrives, and what is no whole dump."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.postgres import reader
from deploy.postgres.reader import Gunzip, Reader, Wary, Wrong

KEY = "k3y"


@dataclass(frozen=True)
class Dump:
    """A dump as pg_dump writes it, and what is in it."""

    text: bytes
    locked: bool
    tables: dict[str, int]
    sequences: dict[str, int]
    extensions: list[str]


def quoted(name: str) -> str:
    return f'"{name}"'.replace('"', '""')[1:-1]


def announced(name: str, kind: str, body: str) -> str:
    one_line = name.replace("\n", " ").replace("\r", " ")
    return (
        f"--\n-- Name: {one_line}; Type: {kind}; Schema: public; Owner: owner\n--\n\n{body}\n\n\n"
    )


def table(name: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    head = f"COPY public.{quoted(name)} ({', '.join(map(quoted, columns))}) FROM stdin;"
    lines = "".join(f"{row}\n" for row in rows)
    announcement = announced(name, "TABLE DATA", f"{head}\n{lines}\\.")
    return announcement.replace("-- Name", "-- Data for Name")


def sequence(name: str, value: int, called: str) -> str:
    word = f"public.{quoted(name)}".replace("'", "''")
    text = f"SELECT pg_catalog.setval('{word}', {value}, {called});"
    return announced(name, "SEQUENCE SET", text)


def dump(
    bodies: Iterable[str] = (),
    tables: Iterable[tuple[str, Sequence[str], Sequence[str]]] = (),
    sequences: Iterable[tuple[str, int, str]] = (),
    extensions: Iterable[str] = (),
    *,
    locked: bool = True,
) -> Dump:
    tables, sequences, extensions = list(tables), list(sequences), list(extensions)
    parts = [
        "--\n-- PostgreSQL database dump\n--\n\n",
        f"\\restrict {KEY}\n\n" if locked else "",
        "-- Dumped from database version 15.14 (Debian)\n",
        "-- Dumped by pg_dump version 15.14 (Debian)\n\n",
        "".join(f"SET setting_{number} = 0;\n" for number in range(11)),
        "\n",
    ]
    parts += [
        announced(name, "EXTENSION", f"CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA public;")
        for name in extensions
    ]
    parts += [
        announced("f()", "FUNCTION", f"CREATE FUNCTION public.f() AS $$\n{body}\n$$;")
        for body in bodies
    ]
    parts += [table(*item) for item in tables] + [sequence(*item) for item in sequences]
    parts.append("--\n-- PostgreSQL database dump complete\n--\n\n")
    parts.append(f"\\unrestrict {KEY}\n\n" if locked else "")
    return Dump(
        "".join(parts).encode(),
        locked,
        {f"public.{quoted(name)}": len(rows) for name, _, rows in tables},
        {f"public.{quoted(name)}": value for name, value, called in sequences if called == "true"},
        extensions,
    )


# What looks like something else where it stands in a function's body, a row, or a name.
TRAPS = (
    "-- PostgreSQL database dump complete",
    "COPY public.plain (id) FROM stdin;",
    "SELECT pg_catalog.setval('public.other', 7, true);",
    "CREATE EXTENSION IF NOT EXISTS ",
    "CREATE EXTENSION IF NOT EXISTS other;",
    f"\\unrestrict {KEY}",
    "\\unrestrict ",
    "\\restrict ",
    "x" * 50,
    "",
)
TRAP = st.sampled_from(TRAPS)
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1),
    st.sampled_from(
        ["a FROM stdin;\nb", 'Tab "le"', "a.b", "it's", "zwei\nzeilen", "ü", *TRAPS[:3]]
    ),
)
# In a row an end of line, a carriage return and a backslash stand escaped, and \. alone nowhere.
ROW = st.one_of(
    TRAP.map(lambda text: text.replace("\\", "\\\\")),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\\")),
    st.just("\\\\."),
)
DUMPS = st.builds(
    dump,
    st.lists(st.lists(TRAP, max_size=3).map("\n".join), max_size=2),
    st.lists(
        st.tuples(NAMES, st.lists(NAMES, max_size=2), st.lists(ROW, max_size=5)),
        max_size=3,
        unique_by=lambda item: item[0],
    ),
    st.lists(
        st.tuples(
            # One whose name has an end of line is not looked at.
            NAMES.filter(lambda name: "\n" not in name),
            st.integers(-(2**63), 2**63 - 1),
            st.sampled_from(["true", "false"]),
        ),
        max_size=3,
        unique_by=lambda item: item[0],
    ),
    st.lists(st.sampled_from(["pg_trgm", "hstore"]), unique=True),
    locked=st.booleans(),
)
SMALL = dump(
    ["-- PostgreSQL database dump complete"], [("t", ["a"], ["1", "2"])], [("s", 3, "true")]
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def told(parts: Iterable[bytes]) -> dict[str, Any]:
    reader = Reader()
    for part in parts:
        reader.feed(part)
    return reader.finish()


def told_packed(parts: Iterable[bytes]) -> dict[str, Any]:
    reader, gunzip = Reader(), Gunzip()
    for part in parts:
        for text in gunzip.unpack(part):
            reader.feed(text)
    gunzip.finish()
    return reader.finish()


CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)


@given(DUMPS, CUTS)
@example(SMALL, list(range(len(SMALL.text))))
def test_what_a_dump_holds_is_told_however_it_arrives(made: Dump, cuts: list[int]) -> None:
    expected = {
        "plain": len(made.text),
        "tables": made.tables,
        "sequences": made.sequences,
        "extensions": made.extensions,
        "server": "15.14 (Debian)",
        "by": "15.14 (Debian)",
    }
    assert told([made.text]) == expected
    assert told(pieces(made.text, cuts)) == expected
    packed = gzip.compress(made.text)
    assert told_packed(pieces(packed, cuts)) == expected
    in_two = gzip.compress(made.text[:100]) + gzip.compress(made.text[100:])
    assert told_packed(pieces(in_two, cuts)) == expected


@given(DUMPS, st.integers(0, 1 << 20), CUTS)
def test_a_dump_that_is_cut_is_refused(made: Dump, at: int, cuts: list[int]) -> None:
    # What is missing behind these words is comment, and empty lines.
    last = f"\\unrestrict {KEY}\n" if made.locked else "-- PostgreSQL database dump complete\n"
    whole = made.text.rindex(last.encode()) + len(last)
    with pytest.raises(Wrong):
        told(pieces(made.text[: at % whole], cuts))
    packed = gzip.compress(made.text, 1)
    with pytest.raises(Wrong):
        told_packed(pieces(packed[: at % len(packed)], cuts))


def test_every_cut_is_refused() -> None:
    packed = gzip.compress(SMALL.text, 1)
    for end in range(len(packed)):
        with pytest.raises(Wrong):
            told_packed([packed[:end]])
    for end in range(len(SMALL.text) - 1):
        with pytest.raises(Wrong):
            told([SMALL.text[:end]])


def test_every_flipped_bit_is_refused_or_changes_nothing() -> None:
    packed = gzip.compress(SMALL.text, 1)
    expected = told([SMALL.text])
    passed = 0
    for place in range(len(packed)):
        for bit in range(8):
            flipped = bytearray(packed)
            flipped[place] ^= 1 << bit
            try:
                assert told_packed([bytes(flipped)]) == expected
                passed += 1
            except Wrong:
                pass
    # The time, the operating system and how hard it was packed: nothing of the content.
    assert 0 < passed <= 8 * 7


@given(DUMPS, st.binary(max_size=40), st.integers(0, 1 << 20), st.integers(0, 9), CUTS)
def test_garbage_is_refused_or_read_and_nothing_else(
    made: Dump, garbage: bytes, at: int, gone: int, cuts: list[int]
) -> None:
    at %= len(made.text)
    parts = pieces(made.text[:at] + garbage + made.text[at + gone :], cuts)
    for read, given_parts in ((told, parts), (told_packed, parts)):
        try:
            read(given_parts)
        except Wrong:
            continue


@given(DUMPS, st.sampled_from([b"drop table t;", b"x" * 300, b"--", b"\\unrestrict other"]), CUTS)
def test_nothing_may_follow_the_end(made: Dump, more: bytes, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "LONGEST_LINE", 200)
        text = made.text + more
        with pytest.raises(Wrong):
            told(pieces(text, cuts))
        if more != b"--":
            with pytest.raises(Wrong):
                told(pieces(text + b"\n", cuts))


@pytest.mark.parametrize(
    "line", ["\\connect other", "\\c other", "  \\connect other", "\\connect", "\\c", "\\c\tother"]
)
def test_what_goes_elsewhere_is_refused(line: str) -> None:
    made = dump(locked=False).text
    for before in (b"SET setting_3", b"\n--\n-- PostgreSQL database dump complete"):
        text = made.replace(before, line.encode() + b"\n" + before)
        for parts in ([text], [bytes([byte]) for byte in text]):
            with pytest.raises(Wrong, match="another database"):
                told(parts)


def test_what_only_looks_like_it_is_for_psql_to_refuse_where_a_dump_locks_itself() -> None:
    made = dump(["\\connect other"])
    for parts in ([made.text], [bytes([byte]) for byte in made.text]):
        told(parts)
    late = made.text.replace(b"\\restrict k3y\n", b"").replace(
        b"SET setting_3", b"\\restrict k3y\nSET setting_3"
    )
    with pytest.raises(Wrong, match="another database"):
        told([late])


@pytest.mark.parametrize(
    "line",
    [
        "SELECT 1; \\connect other",
        "\\! id",
        "\\copy t from program 'id'",
        "x" * 300 + "\\! id",
    ],
)
def test_with_no_lock_at_all_a_dump_of_somebody_else_gives_psql_no_command(line: str) -> None:
    good = dump(
        tables=[("t", ["a"], ["1", "\\\\connect", "\\N", "\\\\\\n\\\\", "\\\\."])], locked=False
    )
    rows = b"\n1\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "LONGEST_LINE", 200)
        for cut in (len(good.text), 1, 7):
            honest = good.text.replace(
                b"SET setting_3", b"SELECT lowrite(0, '\\x6c61');\nSET setting_3"
            )
            assert wary(honest, cut)["tables"] == good.tables
            for before in (b"SET setting_3", rows):
                text = good.text.replace(before, b"\n" + line.encode() + b"\n" + before)
                with pytest.raises(Wrong, match="too old"):
                    wary(text, cut)


def wary(text: bytes, size: int) -> dict[str, Any]:
    reader = Wary()
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    return reader.finish()


@pytest.mark.parametrize("locked", [True, False])
def test_the_lock_of_the_end_is_that_of_the_beginning(*, locked: bool) -> None:
    good = dump(locked=locked).text
    bad = {
        "CR LF": good.replace(b"\n", b"\r\n"),
        "another key": good.replace(b"\\unrestrict k3y", b"\\unrestrict other"),
        "a key at the end alone": good.replace(b"\\restrict k3y\n", b""),
        "a key at the beginning alone": good.replace(b"\\unrestrict k3y\n", b""),
        "no trailer": good.replace(b"-- PostgreSQL database dump complete\n", b""),
    }
    told([good])
    for name, text in bad.items():
        if text != good:
            with pytest.raises(Wrong, match="CR LF" if name == "CR LF" else "end is missing"):
                pytest.fail(f"{name}: {told([text])}")
