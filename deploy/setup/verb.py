"""The verb: each part is looked at, put right where it lacks something, and looked at again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from deploy import lock, origin
from deploy.called import as_called
from deploy.host.process import CommandFailed
from deploy.outcome import Busy, Exit, Failure, Invalid, Unreachable
from deploy.session import Session
from deploy.setup.parts import PARTS
from deploy.setup.site import Part, Site, Wish


class State(StrEnum):
    """What became of a part."""

    RIGHT = "right"
    DONE = "done"
    WILL = "will"
    FAILED = "failed"
    WAITS = "waits"


SIGNS = {
    State.RIGHT: "✓",
    State.DONE: "+",
    State.WILL: "→",
    State.FAILED: "✗",
    State.WAITS: "…",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a part, in a sentence, and what to do when it failed."""

    name: str
    state: State
    what: str
    cure: str = ""
    told: tuple[str, ...] = ()


AGAIN = "inv setup, which goes on from there; another set-up may have been at work beside it"
Act = Callable[[Part, Site, Sequence[str]], Outcome]


def setup(session: Session, wish: Wish) -> tuple[Outcome, ...]:
    """Make a host ready; what is right already is left alone.

    Raises:
        Busy: A run is at work there.
        Invalid: The repository's address is none, or git could not be who it is to be.
        Unreachable: The host cannot be reached.
    """
    site = site_of(session, wish)
    owner = lock.look(site.host, site.layout.lock)
    if owner:
        raise Busy(
            "A run is at work on the host",
            where=f"{site.host.name}:{site.layout.lock}",
            why=owner.as_text(),
            next_step="wait for it; see what it is: inv status",
        )
    return walk(PARTS, site, put_right)


def plan(session: Session, wish: Wish) -> tuple[Outcome, ...]:
    """Say what `setup` would do, and do nothing.

    Raises:
        Invalid: The repository's address is none, or git could not be who it is to be.
        Unreachable: The host cannot be reached.
    """
    return walk(PARTS, site_of(session, wish), foresee)


def site_of(session: Session, wish: Wish) -> Site:
    """Return the host that is to be set up, and where it fetches the code.

    Raises:
        Invalid: The repository's address is none, or git could not be who it is to be.
    """
    for flag, text in (("--git-email", wish.email), ("--git-name", wish.name)):
        if not text.isprintable():
            raise Invalid(
                f"{text[:80]!r} holds a line break or another control character",
                where=flag,
                next_step="the same again, with it in one line",
            )
    given = wish.url or session.settings.git.url
    url = origin.known_url(session.target, session.layout.repository, given)
    address = origin.address_of(url) if url else None
    session.log.learn(address.secrets if address else ())
    return Site(session, wish, address)


def walk(parts: Sequence[Part], site: Site, act: Act) -> tuple[Outcome, ...]:
    """Take the parts in order; of one that fails, those that need it wait, and others do not."""
    found: dict[str, Outcome] = {}
    for part in parts:
        stuck = [name for name in part.needs if found[name].state in (State.FAILED, State.WAITS)]
        if stuck:
            what = f"waits for {', '.join(stuck)}"
            found[part.name] = Outcome(part.name, State.WAITS, what)
            continue
        before = [name for name in part.needs if found[name].state is State.WILL]
        found[part.name] = _tried(part, site, before, act)
    return tuple(found.values())


def _tried(part: Part, site: Site, before: Sequence[str], act: Act) -> Outcome:
    try:
        return act(part, site, before)
    except Unreachable:
        raise
    except Failure as error:
        why = "; ".join(line.strip() for line in error.why.splitlines() if line.strip())
        what = f"{error.what}: {why}" if why else error.what
        tool, _, _ = site.session.caller.trigger.partition(" ")
        cure = as_called(error.next_step or AGAIN, tool, site.session.settings.deploy.host)
        return Outcome(part.name, State.FAILED, what, cure)


def put_right(part: Part, site: Site, _before: Sequence[str]) -> Outcome:
    """Put a part right, when it is not, and see that it is.

    Raises:
        Failure: It could not be.
    """
    lacks = part.lacks(site)
    if not lacks:
        return Outcome(part.name, State.RIGHT, "nothing to do", told=part.tell(site))
    site.session.log.say(f"→ {part.name}: {'; '.join(lacks)}")
    try:
        part.provide(site)
    except CommandFailed:
        if part.lacks(site):
            raise
        site.session.log.say(f"  {part.name}: another set-up has done it meanwhile")
    left = part.lacks(site)
    if left:
        raise Invalid(f"This was done, and is still to be done: {'; '.join(left)}")
    return Outcome(part.name, State.DONE, "; ".join(lacks), told=part.tell(site))


def foresee(part: Part, site: Site, before: Sequence[str]) -> Outcome:
    """Say what would be done to a part.

    Raises:
        Failure: Something stands in the way.
    """
    try:
        lacks = part.lacks(site)
    except Failure:
        if not before:
            raise
        what = f"is looked at after {', '.join(before)}"
        return Outcome(part.name, State.WILL, what)
    if not lacks:
        return Outcome(part.name, State.RIGHT, "nothing to do", told=part.tell(site))
    return Outcome(part.name, State.WILL, "; ".join(lacks))


def as_text(found: Sequence[Outcome]) -> str:
    """Return what became of the parts, a line each, and what a person has to do now."""
    lines = []
    for item in found:
        lines.append(f"{SIGNS[item.state]} {item.name:<12}{item.what}")
        if item.cure:
            lines.append(f"  {'':<12}→ {item.cure}")
    told = [line for item in found for line in item.told]
    return "\n".join([*lines, *told, summary(found)])


def summary(found: Sequence[Outcome]) -> str:
    """Say in a sentence where the host stands."""
    states = {item.state for item in found}
    if State.FAILED in states:
        return "Not ready: see to what failed, then the same again; what is done stays."
    if State.WILL in states:
        return "Nothing was changed; without --plan this will be done."
    if State.DONE in states:
        return "Ready. `doctor` looks at all of it, at any time."
    return "Nothing to do: everything is as it should be."


def code(found: Sequence[Outcome]) -> Exit:
    """Return the exit code that this stands for."""
    failed = any(item.state is State.FAILED for item in found)
    return Exit.INVALID if failed else Exit.OK
