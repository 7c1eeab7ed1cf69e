"""The order of steps, and the runbooks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import runbook
from deploy.detached.steps import detached
from deploy.pipeline import Done, Step, ordered
from deploy.run import Run
from deploy.steps import live

KINDS = ("deploy", "rollback")


def nothing(_run: Run) -> Done:
    return Done()


def step(name: str, *needs: str) -> Step:
    return Step(name, needs, nothing, name)


def names(steps: tuple[Step, ...]) -> list[str]:
    return [item.name for item in steps]


def test_steps_stand_as_they_are_declared_unless_a_need_says_otherwise() -> None:
    assert names(ordered((step("a"), step("b"), step("c")))) == ["a", "b", "c"]
    assert names(ordered((step("a", "c"), step("b"), step("c")))) == ["b", "c", "a"]


def test_a_need_that_nobody_declares_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody declares: b"):
        ordered((step("a", "b"),))


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        ordered((step("a", "b"), step("b", "a")))


@given(st.data())
def test_every_step_comes_after_what_it_needs(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    steps = [
        step(str(number), *(data.draw(st.sets(st.sampled_from(range(number)))) if number else ()))
        for number in range(count)
    ]
    steps = [step(item.name, *(str(need) for need in item.needs)) for item in steps]
    shuffled = data.draw(st.permutations(steps))
    done: set[str] = set()
    for item in ordered(shuffled):
        assert set(item.needs) <= done
        done.add(item.name)
    assert len(done) == count


@pytest.mark.parametrize(
    "steps",
    [
        runbook.deployment_from_here(),
        runbook.deployment_there(),
        runbook.approved(runbook.deployment_from_here()),
        runbook.approved(runbook.deployment_there()),
        runbook.rollback(),
        runbook.build(),
        runbook.backup(),
        runbook.restoration(),
        *(detached(kind) for kind in ("deploy", "rollback", "restore")),
    ],
)
def test_a_runbook_reads_in_the_order_it_runs(steps: tuple[Step, ...]) -> None:
    assert names(ordered(steps)) == names(steps)


def test_a_deployment_takes_no_traffic_before_its_tests_and_its_smoke_tests() -> None:
    first, then = names(ordered(runbook.deployment_from_here())), names(detached("deploy"))
    assert first[-1] == "cutover"
    assert {"lock", "recover", "backup", "test", "build", "tag", "migrate"} <= set(first)
    switch = then.index("switch")
    for before in ("start", "health", "smoke"):
        assert then.index(before) < switch
    for after in ("verify", "watch", "publish", "drain"):
        assert then.index(after) > switch


def test_the_master_is_asked_when_all_is_ready_and_nothing_has_changed() -> None:
    asked = runbook.approved(runbook.deployment_from_here())
    order = names(asked)
    assert order[order.index("approve") - 1 : order.index("approve") + 2] == [
        *("rehearse", "approve", "migrate"),
    ]
    order.remove("approve")
    assert order == names(runbook.deployment_from_here())
    needs = {item.name: item.needs for item in asked}
    assert (needs["approve"], needs["migrate"]) == (("rehearse", "inventory"), ("approve",))


def test_a_way_back_is_not_held_to_what_its_smoke_tests_spend() -> None:
    tests = {
        kind: [step.apply for step in detached(kind) if step.name == "smoke"] for kind in KINDS
    }
    assert tests == {"deploy": [live.smoke_beside], "rollback": [live.smoke_woken]}
