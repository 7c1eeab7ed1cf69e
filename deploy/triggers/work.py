"""Deploy what was pushed, or what a webhook wanted, on this host.

`python3 -m deploy.triggers.work pushed PLAN WHO` deploys the branch as it is in the repository
that people push to, `... wanted PLAN` what the queue wants, as origin has it. Needs PyYAML,
which comes along in the library.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy import host as hosts
from deploy import runbook, terminal, unattended
from deploy.layout import Layout
from deploy.outcome import Exit, Failure
from deploy.pipeline import Done, Step
from deploy.run import Run
from deploy.triggers import queue
from deploy.triggers.pushed import plan_in
from deploy.unattended import Reason

WAIT = 86_400.0  # seconds for a run that holds the lock; who waits deploys the newest in the end
SETTINGS = "invoke.yaml"


def main(words: list[str]) -> int:
    """Deploy.

    Args:
        words: `pushed PLAN WHO`, or `wanted PLAN`.

    Returns:
        The exit code that `fab deploy` would have; of `wanted` 0 when the queue wants it no more,
        however it went.
    """
    way, path, *who = words
    try:
        plan = plan_in(path)
        if way == "pushed":
            reason = Reason("deploy", who[0], "git push", WAIT)
            return unattended.begin(plan, reason, watchful(runbook.deployment_of_push(), plan))
        return deploy_wanted(plan)
    except Failure as failure:
        terminal.err(f"error: {failure.as_text()}")
        return int(failure.code)


def deploy_wanted(plan: Mapping[str, Any]) -> int:
    """Deploy what the queue wants, if it still does when nobody else is at it.

    Returns:
        0 when it wants it no more, however that went.

    Raises:
        Invalid: It could not even be begun, and stays wanted: systemd tries it again.
    """
    folder = Path(Layout(plan["settings"]["deploy"]["root"]).queue)
    with queue.alone(folder):
        push = queue.wanted(folder)
        if push is None:
            return 0
        reason = Reason("deploy", push.who, "webhook", WAIT)
        run = unattended.ready(plan, reason)
        code = unattended.carry_out(run, watchful(runbook.deployment_there(), plan))
        if code == Exit.BUSY:
            return code
        # Only now: whoever is killed before leaves it to the next.
        queue.done(folder, push)
        return 0


def watchful(steps: Sequence[Step], plan: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps such that the one which fetches the code says when its settings differ.

    The host goes by the settings that it was told: whoever may push must not lower what guards
    a deployment by doing so.
    """

    def watched(step: Step) -> Step:
        def apply(run: Run) -> Done:
            done = step.apply(run)
            text = hosts.read(run.target, f"{run.build_folder}/{SETTINGS}")
            if digest(text) != plan["told"]:
                run.warn(
                    f"{SETTINGS} of {run.source.short} is not the one that this host was told;"
                    " that one still counts, until: inv setup"
                )
            return done

        return replace(step, apply=apply)

    return tuple(watched(step) if step.name == "fetch" else step for step in steps)


def digest(text: str) -> str:
    """Return what tells one invoke.yaml from another."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
