"""What a live agent says of itself."""

from __future__ import annotations

import requests

from tests.support.agent import eventually


def health(url: str) -> requests.Response:
    return requests.get(f"{url}/health", timeout=10)


def test_it_is_healthy(live_url: str) -> None:
    eventually(lambda: health(live_url).json()["status"] == "ok")
    found = health(live_url)
    assert found.status_code == 200
    checks = found.json()["checks"]
    assert set(checks) >= {"database", "telegram", "updates", "reactive", "proactive"}
    assert checks["database"]["status"] == "ok"
    assert checks["database"]["latency_ms"] >= 0


def test_it_says_what_it_is(live_url: str) -> None:
    found = health(live_url).json()
    assert found["sha"] != "unknown"
    assert found["version"] != "unknown"
    assert found["uptime_seconds"] >= 0


def test_it_tells_no_secret(live_url: str) -> None:
    text = health(live_url).text
    assert "postgresql://" not in text
    assert "password" not in text.lower()
