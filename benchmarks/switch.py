"""What a deployment costs those who use the service meanwhile, and how quick a rollback is.

`python -m benchmarks.switch [ROUNDS]` deploys the shop of the end-to-end tests to the box and rolls
it back, that many times, under 50 requests a second over 20 connections (GET and POST, some of two
seconds), and compares with the same traffic at rest.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sandbox import box as boxes
from sandbox import contents
from sandbox.box import Box
from sandbox.clone import commit, inv
from sandbox.load import Request, Steady, worst
from sandbox.shell import must, say

ROOT = Path(__file__).resolve().parents[1]
REST = 30.0  # seconds of traffic without a deployment
ROUNDS = 10


@dataclass(frozen=True)
class Shop:
    """A clone of the shop that deploys to a box."""

    clone: Path
    box: Box


def make(root: Path) -> Shop:
    """Return a shop with two good releases in an empty box."""
    box = boxes.up(root / ".sandbox")
    contents.reset(box)
    must(box.ssh("rm -rf /opt/shop"), deadline=30, next_step="")
    clone = box.directory / "benchmark"
    shutil.rmtree(clone, ignore_errors=True)
    shutil.copytree(root / "tests/e2e/shop", clone)
    shutil.copytree(root / "fabfile", clone / "fabfile")
    shutil.copy(root / "tasks.py", clone)
    (clone / ".gitignore").write_text("__pycache__/\n.sandbox\n")
    (clone / ".sandbox").symlink_to(box.directory)
    must(("git", "init", "--quiet", "-b", "main", str(clone)), deadline=30, next_step="")
    must(("git", "-C", str(clone), "add", "--all"), deadline=30, next_step="")
    shop = Shop(clone, box)
    deploy(shop, "one")
    deploy(shop, "two")
    return shop


def deploy(shop: Shop, name: str) -> None:
    """Commit a change and deploy it."""
    commit(shop.clone, "web.py", f"# {name}\n", name)
    if inv(shop.clone, "deploy") != 0:
        raise SystemExit("a deployment failed")


def to_traffic(shop: Shop) -> float:
    """Roll back; return the seconds from the command to the switch, by the host's journal."""
    began = time.time()
    if inv(shop.clone, "rollback") != 0:
        raise SystemExit("a rollback failed")
    newest = "ls -t /opt/shop/journal/*.jsonl | head -n 1 | xargs cat"
    lines = map(json.loads, must(shop.box.ssh(newest), deadline=30, next_step="").splitlines())
    done = next(line for line in lines if (line["step"], line["state"]) == ("switch", "ok"))
    return datetime.fromisoformat(done["at"]).timestamp() - began


def told(name: str, requests: tuple[Request, ...]) -> str:
    """Return a line about some traffic."""
    failed = [item.wrong for item in requests if item.wrong]
    return (
        f"{name:<10} {len(requests):>6} requests, {len(failed)} failed,"
        f" ten worst: median {worst(requests):.3f} s beyond what they ask for"
    )


def at_rest(shop: Shop) -> tuple[Request, ...]:
    """Return the traffic of a while in which nothing else happens."""
    with Steady(shop.box.url, slow="/slow") as traffic:
        subprocess.run(("sleep", str(REST)), check=True)
    return traffic.requests()


def main(rounds: int) -> None:
    """Measure and print."""
    shop = make(ROOT)
    quiet = at_rest(shop)
    seconds = []
    with Steady(shop.box.url, slow="/slow") as traffic:
        for number in range(rounds):
            deploy(shop, str(number))
            seconds.append(to_traffic(shop))
    busy = traffic.requests()
    say(told("at rest", quiet))
    say(told("deploying", busy))
    say(f"difference {worst(busy) - worst(quiet):.3f} s")
    middle, most = statistics.median(seconds), max(seconds)
    say(f"rollback   command to traffic: median {middle:.2f} s, slowest {most:.2f} s, of {rounds}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
