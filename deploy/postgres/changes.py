"""What a migration does to tables that are in use, and what SQL says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

UNNAMED = "<unnamed>"  # what is not known by its name stands in such brackets
THINGS = ("table", "view", "sequence", "schema", "type", "domain")
SAYS = {
    **{f"drop {thing}": f"drops {thing} {{table}}" for thing in THINGS},
    **{f"rename {thing}": f"renames {thing} {{table}} to {{new}}" for thing in THINGS},
    "add bare column": "adds column {table}.{name} as NOT NULL without a default",
    "require column": "sets column {table}.{name} to NOT NULL",
    "retype column": "changes the type of column {table}.{name}",
    "rename column": "renames column {table}.{name} to {new}",
    "drop column": "drops column {table}.{name}",
    "create index": "builds index {name} on {table} without CONCURRENTLY",
    "drop index": "drops index {name}",
    "create unique constraint": "adds unique constraint {name} on {table} without USING INDEX",
    "create primary key": "adds primary key {name} on {table} without USING INDEX",
    "create foreign key": "adds foreign key {name} on {table} without NOT VALID",
    "create check constraint": "adds check constraint {name} on {table} without NOT VALID",
    "create exclude constraint": "adds exclude constraint {name} on {table} under a lock",
    "drop constraint": "drops constraint {name} on {table}",
    "truncate": "empties table {table}",
    "delete": "deletes every row of {table}",
    "update": "changes every row of {table}",
    "add unknown column": "adds a column to {table} that is made at run time",
    "execute": "runs SQL that is made at run time",
}
# What hurts nobody, but counts for what follows it.
MAKE = ("create table", "add column", "create spared index", "add bare column", "create index")
END = ("drop", "rename", "forget")

WORD = r'(?:"[^"]*"|[\w$]+)'
NAME = rf"{WORD}(?:\s*\.\s*{WORD})*"
NAMES = rf"{NAME}(?:\s*,\s*{NAME})*"
IF = r"(?P<if>if\s+(?:not\s+)?exists\s+)?"
ONLY = r"(?:only\s+)?"
THING = rf"(?:materialized\s+)?(?P<thing>{'|'.join(THINGS)}|index)"
COLUMN = rf"(?:column\s+)?{IF}(?P<name>{NAME})"
# What is no statement: comments, quoted names (kept), strings, and bodies between dollars. What
# is not closed goes to the end, so that no text is read twice.
QUOTED = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|"[^"]*"|'(?:[^']|'')*(?:'|\Z)|\$(\w*)\$(.*?)(?:\$\1\$|\Z)""",
    re.DOTALL,
)


def _rule(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)


BLOCK = _rule(r"\bdo(?:\s+language\s+\w+)?\s*\Z")
DEFAULT = _rule(r"\b(?:default|generated|(?:small|big)?serial[248]?)\b")
STATEMENTS = {
    "create table": _rule(rf"\A\s*create\s+(?:\w+\s+){{0,2}}table\s+{IF}(?P<table>{NAME})"),
    "create index": _rule(
        rf"\bcreate\s+(?:unique\s+)?index\s+(?!concurrently\b)(?:{IF}(?P<name>{NAME})\s+)?"
        rf"on\s+{ONLY}(?P<table>{NAME})"
    ),
    "create spared index": _rule(
        rf"\bcreate\s+(?:unique\s+)?index\s+concurrently\s+{IF}(?P<name>{NAME})\s+"
        rf"on\s+{ONLY}(?P<table>{NAME})"
    ),
    "drop": _rule(rf"\bdrop\s+{THING}\s+(?:concurrently\s+)?{IF}(?P<table>{NAMES})"),
    "truncate": _rule(rf"\btruncate\s+(?:table\s+)?(?!on\b){ONLY}(?P<table>{NAMES})"),
    "delete": _rule(rf"\bdelete\s+from\s+{ONLY}(?P<table>{NAME})(?!.*\bwhere\b)"),
    "update": _rule(
        rf"\bupdate\s+{ONLY}(?P<table>{NAME})(?:\s*\*)?(?:\s+(?:as\s+)?(?!set\b){WORD})?\s+set\b"
        r"(?!.*\bwhere\b)"
    ),
    "execute": _rule(r"\bexecute\b(?!\s+(?:function|procedure|on)\b)"),
}
ALTER = _rule(rf"\balter\s+{THING}\s+{IF}{ONLY}(?P<table>{NAME})\s*\*?\s+(?P<actions>.*)")
# The parts of ALTER; the first that fits says what a part does.
ACTIONS = {
    "drop constraint": _rule(rf"drop\s+constraint\s+{IF}(?P<name>{NAME})"),
    "drop column": _rule(rf"drop\s+{COLUMN}"),
    "rename": _rule(rf"rename\s+to\s+(?P<new>{NAME})"),
    "rename column": _rule(rf"rename\s+(?!constraint\b){COLUMN}\s+to\s+(?P<new>{NAME})"),
    "retype column": _rule(rf"alter\s+{COLUMN}\s+(?:set\s+data\s+)?type\b"),
    "require column": _rule(rf"alter\s+{COLUMN}\s+set\s+not\s+null\b"),
    "create constraint": _rule(
        rf"add\s+(?:constraint\s+(?P<name>{NAME})\s+)?"
        r"(?P<rest>(?:unique|primary\s+key|foreign\s+key|check|exclude)\b.*)"
    ),
    "add column": _rule(rf"add\s+{COLUMN}\s+(?P<rest>.*)"),
}
# What each kind of constraint is known by, and what it says to spare those who use the table.
CONSTRAINTS = {
    "UNIQUE": ("create unique constraint", "USING INDEX"),
    "PRIMARY KEY": ("create primary key", "USING INDEX"),
    "REFERENCES": ("create foreign key", "NOT VALID"),
    "CHECK": ("create check constraint", "NOT VALID"),
    "EXCLUDE": ("create exclude constraint", "NOT VALID"),
}


@dataclass(frozen=True)
class Change:
    """One thing that a migration does.

    Args:
        kind: A key of SAYS, or what hurts nobody but counts for what follows.
        table: The table, or the thing of another kind.
        name: The column, index or constraint.
        new: Its name from here on.
    """

    kind: str
    table: str = ""
    name: str = ""
    new: str = ""

    def as_text(self) -> str:
        """Say what it does to those who use the table, empty when that is nothing."""
        return SAYS.get(self.kind, "").format(table=self.table, name=self.name, new=self.new)

    def thing(self, name: str) -> str:
        """Return the full name of what is changed when it is called so."""
        noun = self.kind.rpartition(" ")[2]
        if noun in ("constraint", "key"):
            return ""
        return f"{self.table}.{name}" if noun == "column" else name

    def makes(self) -> str:
        """Return what is there under a new name from here on, empty when nothing is."""
        if self.kind not in MAKE and not self.new:
            return ""
        later = self.thing(self.new or self.name or self.table)
        return "" if "<" in later else later  # what is not known by its name may be anything


def perhaps(changes: Iterable[Change]) -> Iterator[Change]:
    """Return changes that may not happen: what they make is not known to be new afterwards."""
    done = list(changes)
    yield from done
    yield from (Change("forget", item.makes()) for item in done if item.makes())


def findings(
    changes: Iterable[Change], made: frozenset[str]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Say what cannot be undone by code alone, or blocks users.

    Args:
        changes: In the order they happen.
        made: What the same set of migrations has made: nobody uses it yet.

    Returns:
        What there is to say, and what the set has made by now.
    """
    said = []
    for change in changes:
        thing = change.thing(change.name or change.table)
        ends = change.kind.startswith(END)
        own = change.table in made or (ends and thing in made)
        if not own and change.as_text():
            said.append(change.as_text())
        if ends:
            made -= {thing}
        if change.makes() and (own or not change.new):
            made |= {change.makes()}
    return tuple(said), made


def plain(name: str) -> str:
    """Return a name as people write it: without quotes and the usual schema, on one line."""
    words = (word.strip('"') if word[0] == '"' else word.lower() for word in re.findall(WORD, name))
    text = ".".join(words).removeprefix("public.")
    return text if text.isprintable() else repr(text)


def in_sql(text: str) -> Iterator[Change]:
    """Return what SQL does, as far as simple patterns can tell."""
    for statement in _statements(QUOTED.sub(_without_texts, text)):
        for kind, rule in STATEMENTS.items():
            if found := rule.search(statement):
                changes = _in_statement(kind, found.groupdict())
                yield from perhaps(changes) if found.groupdict().get("if") else changes
        if found := ALTER.search(statement):
            for action in found["actions"].split(","):
                yield from _in_action(found["thing"].lower(), plain(found["table"]), action.strip())


def _without_texts(found: re.Match[str]) -> str:
    text, start = found[0], found.start()
    if text.startswith(("--", "/*")):
        return " "
    if text.startswith('"'):
        return text
    if BLOCK.search(found.string[max(0, start - 60) : start]):
        body = found[2] if text.startswith("$") else text.strip("'")
        return f";{QUOTED.sub(_without_texts, body)};"
    return "''"


def _statements(text: str) -> Iterator[str]:
    """Split at semicolons; what stands between parentheses is a statement of its own."""
    levels: list[list[str]] = [[]]
    for piece in (*re.split(r"([;()])", text), ";"):
        if piece == "(":
            levels.append([])
        elif piece == ")" and len(levels) > 1:
            yield "".join(levels.pop())
            levels[-1].append("()")
        elif piece == ";":
            yield from ("".join(pieces) for pieces in levels)
            levels = [[]]
        else:
            levels[-1].append(piece)


def _in_statement(kind: str, said: Mapping[str, str | None]) -> Iterator[Change]:
    if kind == "drop":
        kind = f"drop {(said['thing'] or '').lower()}"
    for name in map(plain, (said.get("table") or "").split(",")):
        if kind == "drop index":
            yield Change(kind, name=name)
        else:
            index = plain(said.get("name") or "") or UNNAMED
            yield Change(kind, name, index if kind.endswith("index") else "")


def _in_action(thing: str, table: str, text: str) -> Iterator[Change]:
    fitting = ((kind, found) for kind, rule in ACTIONS.items() if (found := rule.match(text)))
    for kind, found in islice(fitting, 1):
        said = {key: value or "" for key, value in found.groupdict().items()}
        name, new = plain(said.get("name", "")), plain(said.get("new", ""))
        rest = " ".join(said.get("rest", "").upper().split())
        if kind == "rename":
            yield Change(f"rename {thing}", table, new=new)
        elif kind == "add column":
            bare = "NOT NULL" in rest and not DEFAULT.search(rest)
            change = Change("add bare column" if bare else kind, table, name)
            yield from perhaps([change]) if said["if"] else [change]
        elif kind != "create constraint":
            yield Change(kind, table, name, new)
        if rest:
            for word, (constraint, spared) in CONSTRAINTS.items():
                if word in rest and spared not in rest:
                    yield Change(constraint, table, name or UNNAMED)
