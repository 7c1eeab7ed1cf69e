"""What a check works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deploy.checks.finding import Finding
from deploy.run import Run
from deploy.session import Session


@dataclass(frozen=True)
class Visit:
    """A session, and the tool that deployments would be started with.

    Args:
        session: The session.
        tool: `inv`, where this machine tests and builds, or `fab`, where the host does.
    """

    session: Session
    tool: str

    @property
    def builds_here(self) -> bool:
        """Tell whether this machine tests and builds for another."""
        return self.tool == "inv" and self.session.target is not self.session.here

    @property
    def run(self) -> Run:
        """Return the deployment that would be."""
        builder = self.session.here if self.tool == "inv" else self.session.target
        return self.session.run("deploy", builder)


Check = Callable[[Visit], Iterable[Finding]]
