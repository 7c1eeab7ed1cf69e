"""Ten deployments and ten rollbacks under steady traffic: nothing is lost, nothing is mixed up."""

from __future__ import annotations

import base64
import json
import socket
from dataclasses import dataclass
from datetime import datetime

import pytest

from sandbox.load import Request, Steady
from tests.e2e.conftest import Developer
from tests.support.agent import eventually

ROUNDS = 10


@dataclass(frozen=True)
class Reign:
    """From when until when, by the journal, a release had all the traffic."""

    short: str
    begins: float
    ends: float


@pytest.fixture(scope="module")
def ann(two_releases: Developer) -> Developer:
    return two_releases


def switches(ann: Developer) -> list[tuple[str, float, float]]:
    """The release of each run, and when its switch began and was done, oldest first."""
    found = []
    for record in reversed(ann.document("history", "--limit", "100")):
        lines = ann.on_host(f"cat /opt/shop/journal/{record['id']}.jsonl").splitlines()
        at = {
            (line["step"], line["state"]): datetime.fromisoformat(line["at"]).timestamp()
            for line in map(json.loads, lines)
        }
        found.append((record["sha"][:7], at["switch", "begin"], at["switch", "ok"]))
    return found


def reigns(ann: Developer) -> list[Reign]:
    turns = switches(ann)
    ends = [begin for _, begin, _ in turns[1:]] + [float("inf")]
    return [Reign(short, done, end) for (short, _, done), end in zip(turns, ends, strict=True)]


def strangers(requests: tuple[Request, ...], known: list[Reign]) -> list[Request]:
    """The answers that came from another release than the one that had the traffic."""
    return [
        item
        for item in requests
        for reign in known
        if reign.begins < item.began and item.ended < reign.ends and not item.wrong
        if item.body.split()[-1][:7] != reign.short
    ]


def test_ten_deployments_and_ten_rollbacks_lose_no_request(ann: Developer) -> None:
    with Steady(ann.box.url, slow="/slow") as traffic:
        for number in range(ROUNDS):
            ann.commit("web.py", f"# {number}\n", append=True)
            deployed = ann.inv("deploy")
            assert deployed.code == 0, deployed.said
            back = ann.inv("rollback")
            assert back.code == 0, back.said
    requests = traffic.requests()
    assert [item.wrong for item in requests if item.wrong] == []
    assert len(requests) > 20 * ROUNDS * 2
    known = reigns(ann)
    assert len(known) == 2 + 2 * ROUNDS
    judged = [
        item
        for item in requests
        for reign in known
        if reign.begins < item.began and item.ended < reign.ends
    ]
    assert len(judged) > len(requests) // 2
    assert strangers(requests, known) == []
    for record in ann.document("history", "--limit", str(2 * ROUNDS)):
        assert record["availability"]["failed"] == 0
        assert record["availability"]["sent"] > 0


def websocket(ann: Developer) -> socket.socket:
    """Open a websocket through the front door."""
    link = socket.create_connection((ann.box.address, 8000), timeout=30)
    key = base64.b64encode(b"sixteen bytes ok").decode()
    lines = (
        "GET /echo HTTP/1.1",
        "Host: shop",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    )
    link.sendall("\r\n".join((*lines, "", "")).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += link.recv(1024)
    assert b" 101 " in answer.splitlines()[0]
    return link


def echoed(link: socket.socket, frame: bytes) -> bytes:
    link.sendall(frame)
    return link.recv(1024)


def test_a_websocket_lives_through_the_switch_until_it_is_drained(ann: Developer) -> None:
    """It is given proxy.drain_timeout, and when it ends sooner, so does the wait."""
    ann.commit("web.py", "# websocket\n", append=True)
    with websocket(ann) as link:
        assert echoed(link, b"\x81\x02hi") == b"\x81\x02hi"
        before = ann.live()
        with ann.begun("deploy", "→ drain") as run:
            assert ann.document("status")["release"]["id"] != before
            assert echoed(link, b"\x81\x02yo") == b"\x81\x02yo"
            link.close()
            run.communicate(timeout=60)
            assert run.returncode == 0
    eventually(lambda: len(ann.on_host("docker ps --quiet").split()) == 3)
    assert "connections were still open" not in ann.inv("logs", "deploy").out
