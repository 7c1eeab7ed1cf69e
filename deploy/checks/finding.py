"""What a look at one thing came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    STOPS = "stops"


@dataclass(frozen=True)
class Finding:
    """What a look at one thing came to.

    Args:
        name: What was looked at, in a word or two.
        state: Whether it is well, should be seen to, or stops a deployment.
        what: What was seen, in a sentence.
        cure: What to type or to change; empty when nothing is wrong.
        where: The machine.
    """

    name: str
    state: State
    what: str
    cure: str = ""
    where: str = ""

    @property
    def stops(self) -> bool:
        """Tell whether a deployment would be refused, or fail."""
        return self.state is State.STOPS

    def as_text(self) -> str:
        """Say what is wrong, and what to do about it, in half a sentence."""
        return f"{self.what} ({self.cure})" if self.cure else self.what


def good(name: str, what: str) -> Finding:
    """Return what is as it should be."""
    return Finding(name, State.OK, what)


def warning(name: str, what: str, cure: str) -> Finding:
    """Return what does not stop a deployment, and should be seen to."""
    return Finding(name, State.WARNING, what, cure)


def stop(name: str, what: str, cure: str) -> Finding:
    """Return what stops a deployment."""
    return Finding(name, State.STOPS, what, cure)


def stopping(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return those that stop a deployment."""
    return tuple(item for item in found if item.stops)
