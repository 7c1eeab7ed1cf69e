"""What GitHub and GitLab send, and a stand-in for the deployment that a listener starts."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from deploy.triggers import events, queue
from sandbox.shell import until

SECRET = "planted-webhook-secret-4711"
NEW = "1" * 40


def push(ref: str = "refs/heads/main", sha: str = NEW, **more: Any) -> bytes:
    """Return the body of a push; none is like another."""
    who = {"name": "ann"}
    said = {"ref": ref, "after": sha, "pusher": who, "at": uuid.uuid4().hex, **more}
    return json.dumps(said).encode()


def github(body: bytes, delivery: str = "", secret: str = SECRET) -> dict[str, str]:
    """Return the headers that GitHub sends with a body."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-Hub-Signature-256": events.signature(body, secret.encode()).decode(),
    }


def gitlab(delivery: str = "", secret: str = SECRET) -> dict[str, str]:
    """Return the headers that GitLab sends."""
    return {
        "Content-Type": "application/json",
        "X-Gitlab-Event": "Push Hook",
        "X-Gitlab-Event-UUID": delivery or str(uuid.uuid4()),
        "X-Gitlab-Token": secret,
    }


def main(folder: Path) -> None:
    """Take what is wanted, wait as long as somebody holds it, and note it as deployed."""
    with queue.alone(folder):
        found = queue.wanted(folder)
        if found is None:
            return
        with (folder / "begun").open("a") as begun:
            begun.write(f"{found.sha}\n")
        until(lambda: not (folder / "hold").exists(), deadline=120, every=0.02)
        with (folder / "deployed").open("a") as deployed:
            deployed.write(f"{found.sha}\n")
        queue.done(folder, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
