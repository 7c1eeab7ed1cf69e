"""Where code is fetched from: what may be shown of it, and what may not."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import origin
from deploy.outcome import Invalid
from deploy.settings.schema import Git


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("git@host:shop.git", origin.Address("git@host:shop.git")),
        ("/srv/git/shop.git", origin.Address("/srv/git/shop.git")),
        ("ssh://git@host:22/shop.git", origin.Address("ssh://git@host:22/shop.git")),
        ("ssh://git:pw@host/shop.git", origin.Address("ssh://git@host/shop.git")),
        ("https://host/shop.git", origin.Address("https://host/shop.git")),
        (
            "https://ann:p%40ss@host:8443/shop.git",
            origin.Address("https://host:8443/shop.git", "https://host:8443", "ann", "p@ss"),
        ),
        ("http://t0ken@h/s", origin.Address("http://h/s", "http://h", "t0ken", "")),
    ],
)
def test_credentials_stand_apart_from_the_address(url: str, address: origin.Address) -> None:
    assert origin.address_of(url) == address


@pytest.mark.parametrize("url", ["http://[::1", "https://a:b%0ac@host/x", "https://host/\nx"])
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Invalid, match=r"git\.url is no address") as caught:
        origin.address_of(url)
    assert url not in caught.value.as_text()


@given(st.text(st.characters(min_codepoint=33, codec="utf-8", categories=("L", "N", "P", "S"))))
def test_no_password_is_in_the_arguments(rest: str) -> None:
    password = f"<planted>{rest}"
    address = origin.address_of(f"https://ann:{quote(password, safe='')}@host/shop.git")
    told = origin.fetch("/r/repo", address, keep=True)
    assert told.stdin == f"ann\n{password}\n".encode()
    assert "planted" not in told.shown()


def test_a_users_name_may_be_shown_and_a_token_may_not() -> None:
    assert origin.address_of("https://deploy@host/x").secrets == ()
    assert origin.address_of("https://deploy:pw@host/x").secrets == ("pw",)
    token = "ghp_" + "x" * 30
    assert origin.address_of(f"https://{token}:x-oauth-basic@host/x").secrets == (
        "x-oauth-basic",
        token,
    )


def test_the_url_is_in_no_copy_of_the_settings() -> None:
    assert Git(url="https://ann:secret@host/x", branch="release/1").model_dump() == {
        "branch": "release/1"
    }
