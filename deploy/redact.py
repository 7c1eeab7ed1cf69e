"""Masking of secrets: the one place every outgoing text passes through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK = "***"
SHORTEST = 4  # masking shorter values would shred ordinary text
PATTERNS = (
    re.compile(r"(?<!\d)\d{6,}:[A-Za-z0-9_-]{30,}"),  # a Bot API token
    re.compile(r"(?<=://)([^\s/@:]*:)[^\s@]+(?=@)"),  # the password of a URL
    re.compile(
        r"((?:^|[\s\"'{,;])(?:[A-Z0-9_]*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_KEY))[\"']?\s*[=:]\s*[\"']?)"
        r"([^\s\"',;}]+)",
    ),
)
SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN(?!S_)|API_KEY|PRIVATE_KEY|_URL$|CREDENTIAL")


@dataclass(frozen=True)
class Redactor:
    """Knows the secret values of a run, longest first."""

    values: tuple[str, ...] = ()

    def mask(self, text: str) -> str:
        """Given any text, return it with every known or recognisable secret replaced."""
        for value in self.values:
            text = text.replace(value, MASK)
        text = PATTERNS[0].sub(MASK, text)
        text = PATTERNS[1].sub(rf"\1{MASK}", text)
        return PATTERNS[2].sub(rf"\1{MASK}", text)

    def mask_all(self, value: Any) -> Any:
        """Given a JSON value, return it with every string in it masked."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, Mapping):
            return {key: self.mask_all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mask_all(item) for item in value]
        return value

    def with_values(self, values: Iterable[str]) -> Redactor:
        """Return a redactor that knows these secrets too, in each form they travel in."""
        known = set(self.values)
        for value in values:
            if len(value) >= SHORTEST:
                known |= {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        return Redactor(tuple(sorted(known, key=len, reverse=True)))


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Given an environment, return the values that must never be shown.

    A variable is secret by its name; of a URL only the password is, so that the
    host in it can still be named in an error.
    """
    found = []
    for name, value in environment.items():
        if not SECRET_NAME.search(name.upper()):
            continue
        if "://" in value:
            found.extend(_password(value))
        else:
            found.append(value)
    return tuple(found)


def _password(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        said = parse_qsl(parts.query)
    except ValueError:
        return [url]
    given = [value for name, value in said if name in ("password", "sslpassword")]
    return given + ([parts.password, unquote(parts.password)] if parts.password else [])
