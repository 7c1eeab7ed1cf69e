"""What is to be deployed, on disk before anybody is told so: the newest push, and no other.

One place is enough for it: what is deployed is what origin has when the deployment begins, so
that an older push is in the newest one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from deploy.triggers.events import SHA, Push, name_in

WANTED = "wanted.json"  # is there as long as something is to be deployed
SEEN = "seen"
LOCK = "lock"
WORKING = "working"
LONGEST = 1 << 16  # bytes of what is wanted
UNREADABLE = Push((), "", "somebody")


def wanted(folder: Path) -> Push | None:
    """Return what is to be deployed, None when nothing is."""
    try:
        # The folder is the listener's, and the reader may be root.
        handle = os.open(folder / WANTED, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            said = json.loads(stream.read(LONGEST))
        sha = str(said["sha"])
        known = sha if SHA.fullmatch(sha) else ""
        return Push(tuple(map(str, said["marks"])), known, name_in(said["who"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return UNREADABLE  # somebody wanted something: rather once too often than not at all


def want(folder: Path, push: Push) -> None:
    """Have a push deployed instead of what was to be; it is on disk when this returns."""
    with _locked(folder / LOCK):
        handle, part = tempfile.mkstemp(prefix=".part.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(json.dumps(asdict(push)).encode())
                stream.flush()
                os.fsync(stream.fileno())
            Path(part).replace(folder / WANTED)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        _sync(folder)


def done(folder: Path, push: Push) -> None:
    """Take a push that was deployed, or has failed, off; a newer one stays."""
    with _locked(folder / LOCK):
        if wanted(folder) == push:
            (folder / WANTED).unlink()
            _sync(folder)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else deploys what is wanted, and keep others waiting."""
    with _locked(folder / WORKING):
        yield


class Book:
    """The deliveries that were taken, each of which is taken once.

    Args:
        folder: Where it is kept; one process at a time writes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with contextlib.suppress(FileNotFoundError):
            for part in folder.glob(".part.*"):
                part.unlink()  # of one that was killed
        path = folder / SEEN
        text = path.read_text(errors="replace") if path.exists() else ""
        self._known = set(text.split())

    def take(self, pushes: Sequence[Push]) -> list[bool]:
        """Have the newest of these deployed; all is on disk when this returns.

        Args:
            pushes: In the order they came in.

        Returns:
            For each, whether it is new.
        """
        fresh, known = [], set(self._known)
        for push in pushes:
            fresh.append(known.isdisjoint(push.marks))
            known.update(push.marks)
        taken = [push for push, new in zip(pushes, fresh, strict=True) if new]
        if taken:
            # In this order: one that is only noted as taken would be lost.
            want(self._folder, taken[-1])
            self._note([mark for push in taken for mark in push.marks])
            self._known.update(mark for push in taken for mark in push.marks)
        return fresh

    def _note(self, marks: Sequence[str]) -> None:
        # The break before parts it from what a power cut has left of a line.
        with (self._folder / SEEN).open("a") as stream:
            stream.write("\n" + "".join(f"{mark}\n" for mark in marks))
            stream.flush()
            os.fsync(stream.fileno())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
