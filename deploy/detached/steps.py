"""What hosts do by themselves: the steps of each kind of run that no link may interrupt."""

from __future__ import annotations

from collections.abc import Callable

from deploy.pipeline import Done, Step
from deploy.run import Run
from deploy.steps import data, live, password


def detached(kind: str) -> tuple[Step, ...]:
    """Return the steps that the host does by itself in a run of that kind."""
    known = {"deploy": deployment, "rollback": rollback, "restore": restoration}
    return {**known, "rotate": rotation}[kind]()


def deployment() -> tuple[Step, ...]:
    """Return what makes a migrated release live."""
    return (
        Step("start", (), live.start, "start beside the live release", live.stop_new),
        *_tested_and_switched(live.smoke_beside),
        Step("watch", ("verify",), live.watch, "see it stay well under traffic"),
        Step("publish", ("watch",), live.publish, "write down that it is live"),
        Step("drain", ("publish",), live.drain, "let the release before finish, and keep it"),
    )


def rollback() -> tuple[Step, ...]:
    """Return what makes an earlier release live again."""
    return (
        Step("start", (), live.wake, "start it beside the live one", live.sleep_again),
        *_tested_and_switched(live.smoke_woken),
        Step("publish", ("verify",), live.leave, "write down that it is live"),
        Step("drain", ("publish",), live.drain, "let the release before finish, and keep it"),
    )


def rotation() -> tuple[Step, ...]:
    """Return what makes the live release live once more, with a new password."""
    return (
        Step("password", (), password.change, "let it open the database", password.change_back),
        Step("start", ("password",), live.start, "start beside the live release", live.stop_new),
        *_tested_and_switched(live.smoke_woken),
        Step("publish", ("verify",), live.publish, "write down that it is live"),
        Step("drain", ("publish",), live.drain, "let the release before finish, and keep it"),
        Step("forget", ("drain",), password.forget, "let the old one open nothing"),
    )


def _tested_and_switched(test: Callable[[Run], Done]) -> tuple[Step, ...]:
    return (
        Step("health", ("start",), live.wait_healthy, "wait until it is healthy"),
        Step("smoke", ("health",), test, "test it before it takes traffic"),
        Step("switch", ("smoke",), live.switch, "send the traffic to it", live.switch_back),
        Step("verify", ("switch",), live.smoke_front, "test it through the front door"),
    )


def restoration() -> tuple[Step, ...]:
    """Return what replaces the database."""
    return (
        Step("restore", (), data.bring_back, "replace the database", data.bring_forward),
        Step("verify", ("restore",), data.see_it_work, "see the live release work on it"),
    )
