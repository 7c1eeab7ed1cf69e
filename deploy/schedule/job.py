"""What is to run each day, for whoever starts it: systemd or cron."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What both give to what they start: cron's own would miss half of the tools.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
WORD = re.compile(r"[A-Za-z0-9_./+-]+")


@dataclass(frozen=True)
class Job:
    """A backup each day.

    Args:
        name: What it is called, for systemd and in a crontab.
        at: The time of day, `HH:MM` in UTC.
        python: An interpreter on the host, by its path.
        library: The folder on the host that holds this package.
        plan: The file on the host that says what is to be done.
    """

    name: str
    at: str
    python: str
    library: str
    plan: str

    @property
    def line(self) -> str:
        """Return the command line; it is to be started in the library's folder."""
        words = (self.python, "-s", "-m", "deploy.schedule.work", self.plan)
        strange = [word for word in words if not WORD.fullmatch(word)]
        if strange:  # neither systemd nor cron quotes as a shell does
            raise ValueError(f"not to be written in a unit or a crontab: {strange}")
        return " ".join(words)
