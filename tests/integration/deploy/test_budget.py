"""What the smoke tests of a release spend."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deploy import smoke
from deploy.health import Address
from deploy.host import Host
from deploy.report import record as records
from deploy.report import text
from deploy.settings import Check, Deploy, Proxy, Settings
from deploy.settings.schema import Budget, Smoke
from tests.unit.deploy.test_report import record

SPENT = {"before": 100}


class Release(BaseHTTPRequestHandler):
    """A release that spends ten tokens for each greeting."""

    def do_GET(self) -> None:
        if self.path == "/":
            SPENT["before"] += 10
        body = json.dumps({"budget": {"tokens": SPENT["before"]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Keep quiet."""


@pytest.fixture
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Release)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def settings(field: str = "budget.tokens", most: int = 30) -> Settings:
    return Settings(
        deploy=Deploy(project="shop", title="Shop", root="/tmp"),
        proxy=Proxy(container="shop_proxy", network="net"),
        smoke=Smoke(checks=(Check(name="greeting", path="/"),), retry_seconds=0),
        budget=Budget(field=field, smoke_tokens=most),
    )


def budget(host: Host, base: str, wanted: Settings) -> list[smoke.Finding]:
    return [
        item for item in smoke.metered(host, wanted, Address(base), ()) if item.name == "budget"
    ]


def test_what_is_spent_meanwhile_is_held_to_the_budget(here: Host, base: str) -> None:
    (good,) = budget(here, base, settings())
    assert good.ok
    assert good.detail == "the smoke tests spent 30 tokens, at most 30 wanted"
    (bad,) = budget(here, base, settings(most=29))
    assert not bad.ok
    assert budget(here, base, settings(field="")) == []


def test_a_release_that_tells_nothing_is_refused(here: Host, base: str) -> None:
    (found,) = budget(here, base, settings("budget.nothing"))
    assert not found.ok
    assert found.detail == "budget.nothing is None, not a number of tokens"
    (found,) = budget(here, "http://127.0.0.1:9", settings())
    assert not found.ok


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "12", [], {"a": 1}, "x" * 999])
def test_garbage_is_no_number_of_tokens(value: Any) -> None:
    for before, after in ((value, 5), (5, value)):
        found = smoke.spending(before, after, settings())
        assert not found.ok
        assert "not a number of tokens" in found.detail
        assert len(found.detail) < 120


def test_a_count_that_falls_counts_nothing() -> None:
    found = smoke.spending(500, 20, settings())
    assert not found.ok
    assert "fell from 500 to 20" in found.detail


def test_what_was_found_stands_in_report_and_message() -> None:
    finding = {"name": "budget", "ok": True, "detail": "the smoke tests spent 3 tokens"}
    health = {"name": "health", "ok": True, "detail": "200"}
    front = {**health, "detail": "200 at the front door"}
    found = records._smoke({"smoke": [health, finding], "smoke_front": [front]})
    assert found == [front, finding]
    told = record(smoke=found, approval={"decision": "approved", "seconds": 4.2})
    assert "Budget: the smoke tests spent 3 tokens" in text.message(told, "Shop")
    assert "Approval: approved after 4 s" in text.message(told, "Shop")
    assert "✓ budget: the smoke tests spent 3 tokens" in text.report(told)
    assert "approval  approved after 4 s" in text.report(told)
