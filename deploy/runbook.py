"""The runbooks: which steps a deployment and a rollback are made of, and what each needs."""

from __future__ import annotations

from deploy.pipeline import Step
from deploy.steps import data, live, make, prepare, services

LOCK = Step(
    "lock",
    ("preflight",),
    prepare.take_lock,
    "one run at a time on a host",
)


def deployment(*, preflight: Step, fetch: Step) -> tuple[Step, ...]:
    """Return the steps of a deployment, given how the code is found and fetched."""
    return (
        preflight,
        LOCK,
        fetch,
        Step("services", ("fetch",), services.provide, "what a release leans on"),
        Step("backup", ("services",), make.back_up, "back up the database"),
        Step("test", ("fetch",), make.test, "run the release's own tests"),
        Step("build", ("fetch", "test"), make.build, "build the image"),
        Step("ship", ("build",), make.ship, "bring the image to the host"),
        Step("tag", ("build",), make.keep, "keep the live image for a rollback"),
        Step(
            "migrate",
            ("services", "backup", "test", "ship", "tag"),
            live.migrate,
            "migrate the database in a container of the new image",
        ),
        Step("start", ("migrate",), live.start, "start beside the live release", live.stop_new),
        Step("health", ("start",), live.wait_healthy, "wait until it is healthy"),
        Step("smoke", ("health",), live.smoke_beside, "test it before it takes traffic"),
        Step("switch", ("smoke",), live.switch, "send the traffic to it", live.switch_back),
        Step("verify", ("switch",), live.smoke_front, "test it through the front door"),
        Step("publish", ("verify",), live.publish, "write down that it is live"),
        Step("drain", ("publish",), live.drain, "let the release before finish, and keep it"),
    )


def deployment_from_here() -> tuple[Step, ...]:
    """Return the deployment of `inv`: tests and builds here, ships the image."""
    return deployment(
        preflight=Step("preflight", (), prepare.preflight_here, "is all there that it takes"),
        fetch=Step("fetch", ("lock",), prepare.fetch_here, "export the commit", prepare.abandon),
    )


def deployment_there() -> tuple[Step, ...]:
    """Return the deployment of `fab`: the host fetches, tests and builds."""
    return deployment(
        preflight=Step("preflight", (), prepare.preflight, "is all there that it takes"),
        fetch=Step("fetch", ("lock",), prepare.fetch_there, "fetch the code", prepare.abandon),
    )


def rollback() -> tuple[Step, ...]:
    """Return the steps back to a release that was live and healthy."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        Step("choose", ("lock",), live.choose, "which release takes over"),
        Step("start", ("choose",), live.wake, "start it beside the live one", live.sleep_again),
        Step("health", ("start",), live.wait_healthy, "wait until it is healthy"),
        Step("smoke", ("health",), live.smoke_beside, "test it before it takes traffic"),
        Step("switch", ("smoke",), live.switch, "send the traffic to it", live.switch_back),
        Step("verify", ("switch",), live.smoke_front, "test it through the front door"),
        Step("publish", ("verify",), live.leave, "write down that it is live"),
        Step("drain", ("publish",), live.drain, "let the release before finish, and keep it"),
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
        Step("backup", ("lock",), data.back_up, "back up the database"),
    )


def restoration() -> tuple[Step, ...]:
    """Return the steps of a restore."""
    return (
        Step("preflight", (), prepare.preflight, "is all there that it takes"),
        LOCK,
        Step("restore", ("lock",), data.bring_back, "replace the database", data.bring_forward),
        Step("verify", ("restore",), data.see_it_work, "see the live release work on it"),
    )
