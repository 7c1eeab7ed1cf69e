"""A deployment with a clock that is a day behind: `python yesterday.py here|host`.

The machine's clock stays as it is: the modules that ask for the time get another `datetime`.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

from deploy import cli, runbook, session, verbs
from deploy.detached import launch
from sandbox import dying

# The same program as the host's own, where it is a day earlier.
BEHIND = """
import sys
from datetime import datetime, timedelta
from deploy import journal, log
from deploy.detached import work
from deploy.steps import live
class Yesterday(datetime):
    @classmethod
    def now(cls, zone=None):
        return super().now(zone) - timedelta(days=1)
for module in (journal, log, work, live):
    module.datetime = Yesterday
sys.exit(work.main(["run", sys.argv[1]]))
"""


class Yesterday(datetime):
    """Time as a clock tells it that is a day behind."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Return the time a day ago."""
        return super().now(tz) - timedelta(days=1)


def main(where: str) -> None:
    """Deploy with such a clock here, or on the host."""
    if where == "here":
        session.__dict__["datetime"] = Yesterday
    else:
        words = f"-s -c '{BEHIND}'"
        launch.START = launch.START.replace(dying.ORDINARY, f'"$3" {words} "$2.plan"')
    steps = runbook.deployment_from_here()
    cli.call(Path.cwd(), "", "inv", lambda found: verbs.deploy_from_here(found, "", 0, steps))


if __name__ == "__main__":
    main(sys.argv[1])
