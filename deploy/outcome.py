"""Exit codes and the tree of errors: the only place where one becomes the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """How a run ended, as a shell sees it."""

    OK = 0
    TESTS = 1
    BUILD = 2
    DEPLOY = 3
    ROLLED_BACK = 4
    CRITICAL = 5
    BUSY = 6
    INVALID = 7
    UNREACHABLE = 8
    DATA = 9
    INTERRUPTED = 130
    TERMINATED = 143


class Failure(Exception):  # noqa: N818 - the tree's root; its leaves say what failed
    """Root of everything that ends a run, with the four things a person needs to know.

    Args:
        what: What happened, in one sentence.
        where: Host, step, file or setting it happened at.
        why: The cause as far as it is known; may hold several lines.
        next_step: What to type or to change next.
    """

    code = Exit.DEPLOY

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step

    def as_text(self) -> str:
        """Give the failure as the lines a person reads."""
        lines = [self.what if not self.where else f"{self.what} [{self.where}]"]
        if self.why:
            lines.append(f"  why:  {self.why}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Give the failure as the document that `--json` prints."""
        return {
            "error": self.what if not self.why else f"{self.what}: {self.why}",
            "code": int(self.code),
            "where": self.where,
            "next": self.next_step,
        }


class TestsFailed(Failure):
    """The release's own tests failed, or cover too little."""

    __test__ = False  # pytest takes any Test* class for a suite
    code = Exit.TESTS


class BuildFailed(Failure):
    """The image could not be built."""

    code = Exit.BUILD


class DeployFailed(Failure):
    """The new release never took traffic, or there is nothing to go back to."""

    code = Exit.DEPLOY


class SmokeFailed(DeployFailed):
    """The new release answers, but not as it should."""


class RolledBack(Failure):
    """Smoke tests failed and the previous release is live and healthy."""

    code = Exit.ROLLED_BACK


class RollbackFailed(Failure):
    """Neither release is known to serve: a person is needed."""

    code = Exit.CRITICAL


class Busy(Failure):
    """Another run holds the lock, or approval was not given."""

    code = Exit.BUSY


class Invalid(Failure):
    """Configuration, preflight or usage is wrong; nothing was changed."""

    code = Exit.INVALID


class Exposed(Invalid):
    """Secrets were found where others may read them.

    Args:
        what: As for every failure; so are `where`, `why` and `next_step`.
        findings: Each, as it stands in the document for machines.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        next_step: str = "",
        findings: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(what, where=where, why=why, next_step=next_step)
        self.findings = tuple(findings)

    def as_json(self) -> dict[str, Any]:
        """Give the failure as the document that `--json` prints."""
        return {**super().as_json(), "findings": [dict(item) for item in self.findings]}


class Unreachable(Failure):
    """The host cannot be reached, or is not the one we know."""

    code = Exit.UNREACHABLE


class DataFailed(Failure):
    """A backup or a restore failed; the live database is as it was."""

    code = Exit.DATA


class Interrupted(Failure):
    """The person at the keyboard pressed Ctrl-C."""

    code = Exit.INTERRUPTED


class Terminated(Failure):
    """Something asked this process to end."""

    code = Exit.TERMINATED


def failure_of(error: BaseException) -> Failure:
    """Given anything that was raised, return the failure that stands for it."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("Interrupted", next_step="inv status")
    return DeployFailed(
        f"Unexpected {type(error).__name__}: {error}",
        why="this is a fault in the pipeline itself",
        next_step="inv status shows what is live; the log holds the traceback",
    )
