"""Answers to free text: from a model, within the budget, or else from the facts alone."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import AliasPath, Field

from server_agent import budget, web
from server_agent.budget import BudgetSpent
from server_agent.settings import Settings
from server_agent.store import Store
from server_agent.web import Failed, Given

DEADLINE = 15.0  # seconds; less than the reactive loop may be silent for
ANSWER = 500  # tokens of an answer
ASKED = 4000  # characters of a question
MOST = 4  # times what is reserved; a call that says it took more is not believed
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

log = logging.getLogger("server_agent.reactive.model")


class Usage(Given):
    """The tokens of a call."""

    prompt_tokens: int = Field(ge=0, le=HIGHEST)
    completion_tokens: int = Field(ge=0, le=HIGHEST)


class Completion(Given):
    """The answer of a model's server, https://platform.openai.com/docs/api-reference/chat."""

    text: str = Field(pattern=r"\S", validation_alias=AliasPath("choices", 0, "message", "content"))
    usage: Usage | None = None


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
        except BudgetSpent as error:
            why = str(error)
        except Failed as error:
            why = f"the model did not answer: {error.why}"
        log.warning("answered without the model: %s", why)
        return f"{built_in(question, facts)}\n\n({why})"

    def _ask(self, body: bytes) -> str:
        url = f"{self.settings.model_url}/chat/completions"
        key = {"Authorization": f"Bearer {self.settings.model_api_key}"}
        most = len(body) + ANSWER  # a token has at least one byte
        with self.store.transaction() as found:
            call = budget.reserve(found, self.settings, "answer", most)
        used = (most, 0)  # as long as nobody knows better
        try:
            said = web.read(Completion, web.exchange("POST", url, DEADLINE, body, key))
            if said is None:
                raise Failed("what came back is no answer of a model")
        except Failed as error:
            used = used if error.sent else (0, 0)
            raise
        else:
            if said.usage and said.usage.prompt_tokens:  # a call that took nothing is none
                used = (said.usage.prompt_tokens, said.usage.completion_tokens)
                if sum(used) > MOST * most:
                    log.warning(
                        "a call took %s tokens, they say; %s were reserved", sum(used), most
                    )
                    used = (MOST * most, 0)
            return said.text
        finally:
            self.tokens += sum(used)
            with self.store.transaction() as found:
                budget.settle(found, self.settings, call, *used)


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
