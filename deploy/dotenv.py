"""Environment files as Compose reads them: parsed, filled in, merged, written."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from deploy.outcome import Invalid

GENERATE = "generate"
LINE = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$")
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def parse_env(text: str, where: str = ".env") -> dict[str, str]:
    """Given the text of an environment file, return its variables.

    Raises:
        Invalid: A line is no assignment; the message names the line, not its content.
    """
    found = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        if not match:
            raise Invalid(
                "A line of the environment file is no assignment",
                where=f"{where}:{number}",
                next_step="write NAME=value",
            )
        found[match[1]] = _value(match[2])
    return found


def _value(text: str) -> str:
    if text[:1] == "'":
        return text[1:].partition("'")[0]
    if text[:1] == '"':
        inner = re.match(r'"((?:[^"\\]|\\.)*)"?', text)
        return re.sub(r"\\(.)", r"\1", inner[1]) if inner else ""
    return re.split(r"\s+#", text, maxsplit=1)[0].strip()


def fill_in(example: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    """Given the variables of an example and those a host has, return all of them.

    What the host has stays. Of the others, `generate` becomes a random password and
    `${NAME}` the value of an earlier variable.
    """
    filled: dict[str, str] = {}
    for name, value in example.items():
        if name in kept:
            filled[name] = kept[name]
        elif value == GENERATE:
            filled[name] = secrets.token_urlsafe(24)
        else:
            filled[name] = REFERENCE.sub(lambda match: filled.get(match[1], ""), value)
    return {**kept, **filled}


def write_env(variables: Mapping[str, str]) -> bytes:
    """Given variables, return the text of an environment file that Compose reads back alike.

    Single quotes keep `$`, `#` and spaces as they are; a quote itself needs the other kind.

    Raises:
        Invalid: A value cannot be written on one line.
    """
    lines = []
    for name, value in sorted(variables.items()):
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise Invalid("A variable holds a control character", where=name)
        if "'" in value:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
            lines.append(f'{name}="{escaped}"')
        else:
            lines.append(f"{name}='{value}'")
    return "".join(f"{line}\n" for line in lines).encode()
