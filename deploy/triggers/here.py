"""Hear webhooks on this machine, as long as somebody lets us: `inv listen`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy import host as hosts
from deploy import settings as configuration
from deploy.outcome import Invalid
from deploy.session import Session
from deploy.triggers.install import make_folders, plan_of


def listen(session: Session, address: str) -> None:
    """Hear webhooks on this machine, and deploy what they want to it, until we are told to end.

    Args:
        session: A session on this machine.
        address: `HOST:PORT`, or the path of a socket.

    Raises:
        Invalid: The address is none.
        SystemExit: It ended; the code is that of the contract.
    """
    from deploy.triggers import listen as listening  # noqa: PLC0415 - slow, and for this alone

    host, _, port = address.rpartition(":")
    if not address.startswith("/") and not (host and port.isdecimal() and int(port) < 1 << 16):
        raise Invalid(
            f"{address[:80]!r} is nothing to listen at",
            where="--address",
            next_step="--address 127.0.0.1:9000, or the path of a socket",
        )
    make_folders(session)
    plan = f"{session.layout.triggers}/listen.json"
    # Called as others call it: the front door of `local` would be closed to the world.
    name = configuration.load(session.folder, os.environ).deploy.host
    hosts.replace(session.target, plan, plan_of(session, name).encode())
    package = str(Path(__file__).resolve().parents[2])
    os.chdir(package)  # where what is started finds this package
    deploys = (sys.executable, "-s", "-m", "deploy.triggers.work", "wanted", plan)
    raise SystemExit(listening.main([plan, address, *deploys]))
