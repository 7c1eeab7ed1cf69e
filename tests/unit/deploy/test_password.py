"""A new password: how PostgreSQL keeps it, and where the old one stood."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.dotenv import parse_env, write_env
from deploy.outcome import Invalid
from deploy.postgres import scram
from deploy.steps import password

# The exchange that RFC 7677 shows.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
NONCE = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SAID = (
    f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={NONCE}"
).encode()
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
ENV = {
    "POSTGRES_PASSWORD": "p@ss/1",
    "DATABASE_URL": "postgresql://app:p%40ss%2F1@postgres:5432/app",
    "OTHER": "p@ss/1234",
    "ELSEWHERE": "https://example.org/p@ss/1",
}


def test_a_password_is_kept_as_the_standard_says() -> None:
    kept = scram.verifier("pencil", SALT)
    kind, rounds, keys = kept.split("$")
    assert (kind, rounds) == ("SCRAM-SHA-256", "4096:W22ZaJ0SNY7soEsUEjb6gQ==")
    _, server = (base64.b64decode(key) for key in keys.split(":"))
    assert base64.b64encode(hmac.digest(server, SAID, "sha256")).decode() == SIGNATURE


def test_the_password_is_in_no_argument_and_in_no_sql() -> None:
    found = scram.open_for("c1", "app", "S3cret-S3cret", SALT)
    assert "S3cret" not in found.shown()
    assert found.stdin
    assert b'alter role "app" login password \'SCRAM-SHA-256$4096:' in found.stdin
    assert b"S3cret" not in found.stdin
    assert b"create role" not in found.stdin


def test_two_roles_take_turns() -> None:
    assert (scram.other("app"), scram.other("app_b")) == ("app_b", "app")
    found = scram.open_for("c1", "app_b", "secret", SALT).stdin
    assert found
    assert b'create role "app_b"' in found
    assert b'grant "app" to "app_b"' in found
    assert b'alter role "app_b" set role "app"' in found
    closed = scram.close_for("c1", "app").stdin
    assert closed
    assert b'alter role "app" password null' in closed


@pytest.mark.parametrize("role", ["", 'a"; drop', "a b", "ä", "a\n", "_b", "a" * 62])
def test_a_role_that_needs_quoting_is_refused(role: str) -> None:
    with pytest.raises(Invalid, match="name that is not changed"):
        scram.other(role)


def test_the_new_one_stands_wherever_the_old_one_stood() -> None:
    assert password.login(ENV) == ("app", "p@ss/1")
    found = password.renewed(ENV, ("app", "p@ss/1"), ("app_b", "new"))
    assert found == {
        "POSTGRES_PASSWORD": "new",
        "DATABASE_URL": "postgresql://app_b:new@postgres:5432/app",
        "OTHER": "p@ss/1234",
        "ELSEWHERE": "https://example.org/p@ss/1",
    }


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_whatever_the_old_one_is_the_new_one_opens(old: str) -> None:
    url = f"postgresql://app:{quote(old, safe='')}@db/app"
    variables = {"DATABASE_URL": url, "PW": old}
    found = password.renewed(variables, ("app", old), ("app_b", "new-1"))
    assert password.login(parse_env(write_env(found).decode())) == ("app_b", "new-1")
    assert found["PW"] == "new-1"
