"""What the agent's description of its interface allows, and what it does not, sent at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from tests.support import agent
from tests.support.agent import Running

EXAMPLES = 200
# Not that what fits is accepted: 1.0 fits, but is no number of an update.
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
SECRET = "X-Telegram-Bot-Api-Secret-Token"


@pytest.fixture(scope="module")
def described(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("described") / "agent.log"
    with agent.housed(postgres_url, template, log) as (found, _, _):
        yield found
        assert found.get().json()["status"] == "ok"
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("secret", ["", agent.SECRET])
@pytest.mark.parametrize(
    ("label", "mode"),
    [
        ("GET /health", GenerationMode.POSITIVE),
        ("POST /webhook/telegram", GenerationMode.POSITIVE),
        ("POST /webhook/telegram", GenerationMode.NEGATIVE),
    ],
)
def test_whatever_comes_is_answered_as_described(
    described: Running, label: str, mode: GenerationMode, secret: str
) -> None:
    headers = {SECRET: secret} if secret else {}
    schema = schemathesis.openapi.from_url(f"{described.url}/openapi.json")
    operation = schema.find_operation_by_label(label)
    assert operation

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    check()


def test_the_description_is_there_and_nothing_that_loads_scripts(described: Running) -> None:
    assert described.get("/openapi.json").status_code == 200
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert described.get(path).status_code == 404
