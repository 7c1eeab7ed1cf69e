"""Answers to free text: from a model, within the budget, or else from the facts alone."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2

from server_agent import budget, web
from server_agent.budget import BudgetSpent
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.web import Answer

DEADLINE = 15.0  # seconds; less than the reactive loop may be silent for
ANSWER = 500  # tokens of an answer
ASKED = 4000  # characters of a question
HIGHEST = 10**15  # tokens; a provider that says more is not believed

RULES = (
    "You look after a server and answer its owner, briefly and in plain text. You can only "
    "answer: what the owner wants done, they do by commands. What you know of the server now:\n"
)
WORDS: Mapping[str, tuple[str, ...]] = {
    "disk": ("disk", "space", "storage"),
    "memory": ("memory", "ram"),
    "backup": ("backup", "dump"),
    "deployment": ("deploy", "release", "version"),
}
UNKNOWN = "I can tell about disk, memory, backup and deployment. /help lists what I do."
Used = tuple[int, int]  # tokens that a model was sent, and that it answered with

log = logging.getLogger("server_agent.reactive.model")


@dataclass(eq=False)
class ModelFailed(Exception):  # noqa: N818 - it says what it is
    """The model gave no answer; why, in a few words without the key."""

    why: str
    used: Used | None = None  # the tokens that it took; None when nobody knows

    def __str__(self) -> str:
        return f"the model did not answer: {self.why}"


@dataclass
class Model:
    """Asks the model, and knows what this process has spent."""

    settings: Settings
    store: Store
    tokens: int = 0

    def answer(self, question: str, facts: Mapping[str, object]) -> str:
        """Answer what the Master wrote. To be asked again after a crash costs tokens, no more."""
        if not self.settings.model_url:
            return built_in(question, facts)
        try:
            return self._ask(prompt(self.settings.model_name, question, facts))
        except (ModelFailed, BudgetSpent) as error:
            log.warning("answered without the model: %s", error)
            return f"{built_in(question, facts)}\n\n({error})"

    def _ask(self, body: bytes) -> str:
        most = len(body) + ANSWER  # a token has at least one byte
        with self.store.transaction() as found:
            call = budget.reserve(found, self.settings, "answer", most)
        try:
            text, used = _call(self.settings, body)
        except ModelFailed as error:
            self._settle(call, error.used or (most, 0))
            raise
        self._settle(call, used or (most, 0))
        return text

    def _settle(self, call: int, used: Used) -> None:
        self.tokens += sum(used)
        try:
            with self.store.transaction() as found:
                budget.settle(found, self.settings, call, *used)
        except psycopg2.Error as error:  # it stays reserved, which is not less
            log.warning("call %s could not be settled: %s", call, type(error).__name__)


def prompt(model: str, question: str, facts: Mapping[str, object]) -> bytes:
    """Return what a model is sent."""
    known = "\n".join(f"{name}: {fact}" for name, fact in facts.items())
    messages = [
        {"role": "system", "content": RULES + known},
        {"role": "user", "content": question[:ASKED]},
    ]
    body = {"model": model, "messages": messages, "max_tokens": ANSWER}
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def built_in(question: str, facts: Mapping[str, object]) -> str:
    """Answer from the facts, by the words that a question holds."""
    asked = question.lower()
    lines = [
        f"{name}: {facts[name]}"
        for name, words in WORDS.items()
        if name in facts and any(word in asked for word in words)
    ]
    return "\n".join(lines) or UNKNOWN


def _call(settings: Settings, body: bytes) -> tuple[str, Used | None]:
    url = f"{settings.model_url}/chat/completions"
    key = {"Authorization": f"Bearer {settings.model_api_key}"}
    try:
        answer = web.exchange("POST", url, DEADLINE, body, key)
    except web.Failed as error:
        raise ModelFailed(error.why, used=None if error.sent else (0, 0)) from None
    if answer.status != 200:
        # Its text is not shown: some quote the key. What was refused was not worked on.
        used = (0, 0) if 400 <= answer.status < 500 else None
        raise ModelFailed(f"HTTP {answer.status}", used)
    return parse(answer)


def parse(answer: Answer) -> tuple[str, Used | None]:
    """Return what a model said, and the tokens it took when it says so credibly."""
    data = answer.json()
    if data is None:
        raise ModelFailed("its answer is no JSON")
    used = _used(data.get("usage") if isinstance(data, dict) else None)
    try:
        said = data["choices"][0]["message"]["content"]
    except (TypeError, KeyError, IndexError):
        said = None
    if not isinstance(said, str) or not said.strip():
        raise ModelFailed("its answer holds no text", used)
    return said, used


def _used(given: Any) -> Used | None:
    found = given if isinstance(given, dict) else {}
    sent, said = found.get("prompt_tokens"), found.get("completion_tokens")
    # A call that took nothing is not believed either.
    if type(sent) is int and type(said) is int and 0 < sent <= HIGHEST and 0 <= said <= HIGHEST:
        return sent, said
    return None
