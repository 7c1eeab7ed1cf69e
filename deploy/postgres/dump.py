"""Whether a dump is whole, and what is in it: one pass over the stream, on its host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.command import script
from deploy.host import Host
from deploy.outcome import DataFailed

# pg_dump announces each table's data; a function body that looks like COPY is not counted.
# Since 17.6/16.10/15.14 `\unrestrict KEY` follows the trailer, and KEY is the header's.
READER = r"""
NR <= 4 && $0 == "-- PostgreSQL database dump" { header = 1 }
NR <= 12 && /^\\restrict [A-Za-z0-9]+$/ { key = $2 }
copying { if ($0 == "\\.") { copying = 0; print "rows", rows, target } else rows++; next }
/^-- Data for Name: .*; Type: TABLE DATA; / { announced = 1 }
announced && /^COPY .* FROM stdin;$/ { announced = 0; copying = 1; rows = 0; target = $0; next }
/^\\connect / { connect = 1 }
$0 == "-- PostgreSQL database dump complete" { complete = 1; next }
complete && /^\\unrestrict / { if ($2 == key) unlocked = 1; else complete = 0; next }
complete && $0 != "--" && $0 != "" { complete = 0 }
END {
  print "header", header + 0
  print "complete", complete && !copying && (key == "" || unlocked) ? 1 : 0
  print "connect", connect + 0
}
"""
INSPECT = """
case "$1" in *.gz | *.gz.part) open='gzip -dc' ;; *) open=cat ;; esac
$open -- "$1" | LC_ALL=C awk "$2"
printf 'sha256 %s\\n' "$(sha256sum <"$1" | cut -d ' ' -f 1)"
printf 'bytes %s\\n' "$(stat -c %s -- "$1")"
"""
NAME = re.compile(
    r'^COPY ((?:"(?:[^"]|"")*"|[^\s".(]+)(?:\.(?:"(?:[^"]|"")*"|[^\s".(]+))*)',
)


@dataclass(frozen=True)
class Contents:
    """What a whole dump holds."""

    sha256: str
    bytes: int
    tables: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Return the rows of all tables."""
        return sum(self.tables.values())


def inspect(host: Host, path: str, deadline: float) -> Contents:
    """Read a dump from its first byte to its last.

    Args:
        host: Where the file is.
        path: A plain dump, `.sql` or `.sql.gz`.
        deadline: Seconds for the whole pass.

    Raises:
        DataFailed: It is not whole; `why` says what is wrong with it.
    """
    result = host.run(script(INSPECT, path, READER, deadline=deadline))
    if not result.ok:
        raise damaged(f"{host.name}:{path}", complaint(result.err, path))
    return parse(result.out, f"{host.name}:{path}")


def parse(text: str, where: str) -> Contents:
    """Given what the pass over a dump printed, return its contents.

    Raises:
        DataFailed: The dump is not whole.
    """
    facts: dict[str, str] = {}
    tables: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "rows":
            count, _, target = value.partition(" ")
            match = NAME.match(target)
            tables[match[1] if match else target] = int(count)
        else:
            facts[key] = value
    if facts.get("header") != "1":
        raise damaged(where, "it does not begin like a dump of pg_dump")
    if facts.get("complete") != "1":
        raise damaged(where, "its end is missing, or was changed")
    if facts.get("connect") != "0":
        raise damaged(where, "it connects to another database by itself")
    return Contents(facts["sha256"], int(facts["bytes"]), tables)


def complaint(text: str, path: str) -> str:
    """Given what the pass over a dump said when it failed, return it as a person needs it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "it cannot be read"
    said = last.removeprefix("gzip: ").removeprefix(f"{path}: ")
    return said.replace("unexpected end of file", "unexpected end of the compressed file")


def damaged(where: str, why: str) -> DataFailed:
    """Return the failure for a dump that nobody should trust."""
    return DataFailed("The dump is damaged", where=where, why=why, next_step="inv backup")
