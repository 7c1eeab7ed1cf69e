"""HTTPS by a domain: a certificate, a redirect, limits, and a switch under load."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable

import pytest

from sandbox.load import Load, plain
from tests.e2e.conftest import Developer, change_settings

DOMAIN = "shop.test"
AUTHORITY = "docker exec shop_proxy cat /data/caddy/pki/authorities/local/root.crt"
SECOND = (
    "curl --silent --insecure --http2 --connect-to ::127.0.0.1: --data-binary @- --output /dev/null"
    f" --write-out '%{{http_code}} %{{http_version}}' https://{DOMAIN}/"
)
# In one go: what is too large is answered before it has all arrived.
LARGE = 50_000_000


@pytest.fixture(scope="module")
def ann(shop: Developer) -> Developer:
    """A developer whose shop has a domain, and a first release."""
    door = {"domain": DOMAIN, "certificates": "internal"}
    change_settings(shop.clone / "invoke.yaml", {"proxy": door})
    shop.commit("web.py", "# 1\n", append=True)
    ended = shop.inv("deploy")
    assert ended.code == 0, ended.said
    return shop


def trusting(ann: Developer) -> ssl.SSLContext:
    """What trusts the proxy's own authority, and nobody else."""
    return ssl.create_default_context(cadata=ann.on_host(AUTHORITY))


def secured(ann: Developer) -> Callable[[str], http.client.HTTPConnection]:
    """Connections to the box, whatever the name, whose certificate must be good for it."""
    context = trusting(ann)

    def connect(name: str) -> http.client.HTTPConnection:
        found = http.client.HTTPConnection(name, timeout=10)
        link = socket.create_connection((ann.box.address, 8443), 10)
        try:
            found.sock = context.wrap_socket(link, server_hostname=name)
        except BaseException:
            link.close()
            raise
        return found

    return connect


def ask(
    ann: Developer, *, body: bytes = b"", headers: dict[str, str] | None = None
) -> http.client.HTTPResponse:
    connection = secured(ann)(DOMAIN)
    try:
        connection.request("POST" if body else "GET", "/", body or None, headers or {})
    except OSError:  # it was refused before it had all been sent
        assert body
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def certificate(ann: Developer) -> bytes | None:
    link = socket.create_connection((ann.box.address, 8443), 10)
    with trusting(ann).wrap_socket(link, server_hostname=DOMAIN) as secure:
        return secure.getpeercert(binary_form=True)


def test_it_answers_by_https_with_a_certificate_of_its_own(ann: Developer) -> None:
    answer = ask(ann)
    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    found = ann.document("status")
    assert (found["healthy"], found["url"]) == (True, f"https://{DOMAIN}")
    smoke = ann.inv("smoke")
    assert smoke.code == 0, smoke.said
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(
            socket.create_connection((ann.box.address, 8443), 10), server_hostname=DOMAIN
        )


def test_who_comes_by_http_is_sent_there(ann: Developer) -> None:
    connection = plain(f"{ann.box.address}:8080")
    connection.request("GET", "/a?b=c", headers={"Host": DOMAIN})
    answer = connection.getresponse()
    assert answer.status == 308
    assert answer.headers["Location"] == f"https://{DOMAIN}/a?b=c"
    connection.close()


def test_too_much_is_refused(ann: Developer) -> None:
    assert ask(ann, body=bytes(9_000_000)).status == 200
    assert ask(ann, body=bytes(LARGE)).status == 413
    assert ann.on_host(f"head -c {LARGE} /dev/zero | {SECOND}") == "413 2"
    assert ask(ann, headers={"X-Large": "a" * 60_000}).status == 431
    assert ask(ann).status == 200


def test_a_switch_under_https_load_loses_no_request(ann: Developer) -> None:
    ann.commit("web.py", "# 2\n", append=True)
    with Load(f"https://{DOMAIN}/", secured(ann)) as load:
        ended = ann.inv("deploy")
    assert ended.code == 0, ended.said
    figures = load.figures()
    assert figures.wrong == ()
    assert figures.sent > 50
    (record,) = ann.document("history", "--limit", "1")
    assert record["availability"]["failed"] == 0
    assert record["availability"]["sent"] > 0


def test_the_certificate_outlives_the_proxy(ann: Developer) -> None:
    before = certificate(ann)
    ann.on_host("docker rm --force shop_proxy")
    ended = ann.inv("rollback")  # it brings the proxy back
    assert ended.code == 0, ended.said
    assert certificate(ann) == before


def test_without_a_certificate_the_door_stays_as_it_was(ann: Developer) -> None:
    """Nobody issues one for this domain: the box reaches no authority."""
    before = ann.live()
    nowhere = {
        "domain": "other.test",
        "certificates": "https://127.0.0.1:1/directory",
        "certificate_timeout": 3,
    }
    change_settings(ann.clone / "invoke.yaml", {"proxy": nowhere})
    ann.commit("web.py", "# 3\n", append=True)
    ended = ann.inv("deploy")
    assert ended.code == 3, ended.said
    assert "got no certificate for other.test" in ended.said
    ann.back()
    assert ann.live() == before
    assert ask(ann).status == 200
