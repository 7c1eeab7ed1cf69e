"""The runbooks: which steps each kind of run is made of, and what each needs.

The last step of a run that changes what serves hands it over: those steps stand in
`deploy/detached/steps.py`, and the host does them by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from deploy import recover
from deploy.detached import launch, work
from deploy.pipeline import Done, Step
from deploy.run import Run
from deploy.steps import (
    approve,
    data,
    inventory,
    live,
    make,
    prepare,
    prune,
    rehearse,
    renew,
    services,
)

Apply = Callable[[Run], Done]
LOCK = Step("lock", ("preflight",), prepare.take_lock, "one run at a time on a host")
RECOVER = Step("recover", ("lock",), recover.settle_earlier, "what is live, what was left behind")


def deployment(*, preflight: Step, fetch: Step) -> tuple[Step, ...]:
    """Return the steps of a deployment, given how the code is found and fetched."""
    return (
        preflight,
        LOCK,
        RECOVER,
        fetch,
        Step("services", ("fetch",), services.provide, "what a release leans on"),
        Step("backup", ("services",), make.back_up, "back up the database"),
        Step("prune", ("services",), prune.prune, "make room for what is to come"),
        Step("test", ("fetch", "prune"), make.test, "run the release's own tests"),
        Step("build", ("fetch", "test"), make.build, "build the image", make.unbuild),
        Step("ship", ("build",), make.ship, "bring the image to the host"),
        Step("tag", ("build",), make.keep, "keep the live image for a rollback"),
        Step("inventory", ("ship",), inventory.take, "list what the image is made of"),
        Step(
            "rehearse",
            ("services", "backup", "test", "ship", "tag"),
            rehearse.rehearse,
            "migrate a copy first, and see the live release work on it",
        ),
        Step(
            "migrate",
            ("rehearse", "inventory"),
            live.migrate,
            "migrate the database in a container of the new image",
            live.end_migration,
        ),
        hand_over("migrate"),
    )


def approved(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps of a deployment with one more, before anything changes: the Master's word.

    That he can be asked at all is seen at the very beginning.
    """
    first, *rest = steps
    here = [step.name for step in rest].index("migrate")

    def look(run: Run) -> Done:
        approve.possible(run)
        return first.apply(run)

    asking = Step("approve", rest[here].needs, approve.ask, "wait for the Master's word")
    migrate = replace(rest[here], needs=("approve",))
    return (replace(first, apply=look), *rest[:here], asking, migrate, *rest[here + 1 :])


def hand_over(after: str) -> Step:
    """Return the last step of a run whose end the host does by itself."""
    return Step(work.HAND_OVER, (after,), launch.hand_over, "the host takes over")


def deployment_from_here() -> tuple[Step, ...]:
    """Return the deployment of `inv`: tests and builds here, ships the image."""
    return deployment(
        preflight=Step("preflight", (), prepare.preflight_here, "is all there that it takes"),
        fetch=Step("fetch", ("recover",), prepare.fetch_here, "export the commit", prepare.abandon),
    )


def deployment_there() -> tuple[Step, ...]:
    """Return the deployment of `fab`: the host fetches, tests and builds."""
    return deployment(
        preflight=Step("preflight", (), prepare.preflight, "is all there that it takes"),
        fetch=Step("fetch", ("recover",), prepare.fetch_there, "fetch the code", prepare.abandon),
    )


def deployment_of_push() -> tuple[Step, ...]:
    """Return the deployment of what was pushed to the host, which tests and builds it."""
    return deployment(
        preflight=Step("preflight", (), prepare.preflight, "is all there that it takes"),
        fetch=Step("fetch", ("recover",), prepare.fetch_pushed, "take the code", prepare.abandon),
    )


def rollback() -> tuple[Step, ...]:
    """Return the steps back to a release that was live and healthy."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        RECOVER,
        Step("choose", ("recover",), live.choose, "which release takes over"),
        hand_over("choose"),
    )


def build() -> tuple[Step, ...]:
    """Return the steps of a build that is not deployed."""
    return (
        Step("preflight", (), prepare.preflight_here, "is all there that it takes"),
        Step("fetch", ("preflight",), prepare.fetch_to_build, "export the commit"),
        Step("test", ("fetch",), make.test, "run the release's own tests"),
        Step("build", ("test",), make.build, "build the image"),
    )


def backup() -> tuple[Step, ...]:
    """Return the steps of a backup that somebody asked for."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        RECOVER,
        Step("backup", ("recover",), data.back_up, "back up the database"),
    )


def restoration() -> tuple[Step, ...]:
    """Return the steps of a restore."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        RECOVER,
        hand_over("recover"),
    )


def rotation() -> tuple[Step, ...]:
    """Return the steps to a new password for the database."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        RECOVER,
        Step("renew", ("recover",), renew.renew, "make a new password", prepare.abandon),
        hand_over("renew"),
    )


def decrypted(steps: Sequence[Step], identity: Path) -> tuple[Step, ...]:
    """Return the steps of a restore with one before its last: what it reads is decrypted here.

    Args:
        steps: Those of the restore.
        identity: The file with the private key.
    """
    *before, last = steps
    opening = Step(
        "decrypt",
        last.needs,
        lambda run: data.decrypt(run, identity),
        "decrypt the backup on its way over this machine",
        data.remove_decrypted,
    )
    return (*before, opening, replace(last, needs=("decrypt",)))


def restoration_beside(bring: Apply) -> tuple[Step, ...]:
    """Return the steps of a restore that leaves the live database alone, given what does it."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        RECOVER,
        Step("restore", ("recover",), bring, "make a database beside the live one"),
    )


def verification(verify: Apply) -> tuple[Step, ...]:
    """Return the steps that see whether backups are good, given what does it."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        RECOVER,
        Step("verify", ("recover",), verify, "see whether the backups are what they should be"),
    )
