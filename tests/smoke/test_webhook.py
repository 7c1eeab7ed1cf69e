"""A live agent's door for Telegram: shut to everybody else."""

from __future__ import annotations

import pytest
import requests


@pytest.mark.parametrize("secret", [None, "", "guess"])
def test_without_the_secret_nothing_gets_in(live_url: str, secret: str | None) -> None:
    header = {} if secret is None else {"X-Telegram-Bot-Api-Secret-Token": secret}
    answer = requests.post(
        f"{live_url}/webhook/telegram", json={"update_id": 1}, headers=header, timeout=10
    )
    assert answer.status_code == 403


def test_it_only_takes_what_is_sent_to_it(live_url: str) -> None:
    assert requests.get(f"{live_url}/webhook/telegram", timeout=10).status_code == 405
