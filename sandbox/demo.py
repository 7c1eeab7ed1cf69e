"""The main job, shown: three deployments to the box, and what the Master sees of them.

The second is under load and waits for his word, the third is broken.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.outcome import DeployFailed
from deploy.probe import Figures
from sandbox import box as boxes
from sandbox import contents, telegram
from sandbox.bot_api import MASTER, TOKEN
from sandbox.clone import clone as make
from sandbox.clone import commit, configure, document, inv
from sandbox.load import Load
from sandbox.shell import say, until

ASKED = 900.0  # seconds until the Master is asked
ANSWERED = 60.0  # seconds that the agent has for an answer
BROKEN = '\nCMD ["python", "-c", "import time; time.sleep(3600)"]\n'


@dataclass(frozen=True)
class Stage:
    """Where it is shown: the clone that deploys, the box, and the Bot API in there."""

    clone: Path
    box: boxes.Box
    bot_api: str

    def deploy(self, *words: str) -> int:
        """Type `inv deploy`; return the exit code."""
        return inv(
            self.clone,
            "deploy",
            *words,
            TELEGRAM_API_TOKEN=TOKEN,
            MASTER_CHAT_ID=MASTER,
            TELEGRAM_API_BASE=self.bot_api,
        )


@dataclass(frozen=True)
class Act:
    """One deployment of the demo, and what came of it."""

    title: str
    code: int
    record: dict[str, Any]
    load: Figures | None
    asked: str = ""


def run(root: Path) -> str:
    """Show three deployments to the box, from a clone of this checkout's HEAD.

    Args:
        root: The checkout.

    Returns:
        What happened, with figures.

    Raises:
        DeployFailed: Something went otherwise than it should; the text is in `why`.
    """
    stage = prepare(root)
    first = _act(stage, "v1: the first deployment", stage.deploy)
    commit(stage.clone, "server_agent/__init__.py", "\n# v2\n", "v2")
    with Load(f"{stage.box.url}/health") as load:
        second = _approved(stage, "v2: under load, with the Master's word", load)
    sha = second.record["sha"][:7]
    heard = telegram.answer_to(stage.bot_api, "/deployments", sha, ANSWERED)
    commit(stage.clone, "Dockerfile", BROKEN, "v3: never answers")
    with Load(f"{stage.box.url}/health") as load:
        third = _act(stage, "v3: broken, it never becomes healthy", stage.deploy, load)
    acts, status = (first, second, third), document(stage.clone, "status")
    parts = (*map(_told, acts), _heard(stage, heard), _now(status, second))
    told = "\n\n".join(("", *parts))
    problems = _problems(acts, status, heard)
    if problems:
        raise DeployFailed("The demo went otherwise than it should", why=f"{problems}\n{told}")
    return told


def prepare(root: Path) -> Stage:
    """Return an empty box with a Bot API, and a clone that deploys to it.

    The agent reaches the Bot API at another address than we do, so ours is not passed on to it.
    """
    box = boxes.up(root / ".sandbox")
    contents.reset(box)
    bot_api = telegram.start(box)
    clone = make(root, box, "demo")
    configure(clone, {"    - TELEGRAM_API_BASE\n": ""})
    configure(clone, {"https://api.telegram.org": telegram.inside(box)}, ".env.example")
    commit(clone, "invoke.yaml", "", "the box's Bot API")
    return Stage(clone, box, bot_api)


def _act(stage: Stage, title: str, deploy: Callable[[], int], load: Load | None = None) -> Act:
    say(f"\n=== {title}")
    code = deploy()
    return Act(title, code, document(stage.clone, "report"), load.figures() if load else None)


def _approved(stage: Stage, title: str, load: Load) -> Act:
    """Deploy with --require-approval, and press the button as the Master would."""
    asked: list[str] = []

    def deploy() -> int:
        with ThreadPoolExecutor() as pool:
            going = pool.submit(stage.deploy, "--require-approval")
            until(lambda: going.done() or bool(telegram.question(stage.bot_api)), deadline=ASKED)
            question = telegram.question(stage.bot_api)
            if question:
                pressed = telegram.press(stage.bot_api, question, "approve")
                asked.append(str(question["text"]))
                read = _quoted(str(question["text"]))
                say(f"\n{read}\n\n  the Master presses {pressed}\n")
            return going.result()

    act = _act(stage, title, deploy, load)
    return replace(act, asked="".join(asked))


def _told(act: Act) -> str:
    lines = [f"{act.title}: exit code {act.code}, {act.record['outcome']}"]
    if act.record["error"]:
        lines.append(f"  {act.record['error']['error'].splitlines()[0]}")
    lines += [
        f"  {step['name']:<10}{step['state']:<9}{step['seconds']:>7.2f} s"
        for step in act.record["steps"]
    ]
    if act.asked:
        word = act.record["approval"]
        lines.append(f"  {word['decision']} by the Master, heard by {word['heard_by']}; he read:")
        lines.append(_quoted(act.asked))
    if act.load:
        lines.append(f"  {act.load.as_text()}")
    return "\n".join(lines)


def _heard(stage: Stage, answer: str) -> str:
    heads = [text.splitlines()[0] for text in telegram.sent(stage.bot_api)]
    told = [head for head in heads if "DEPLOYMENT" in head]
    lines = ["after v2 the Master wrote /deployments, and the agent answered:"]
    lines += [_quoted(answer or "nothing")]
    return "\n".join([*lines, f"and each run told him once: {', '.join(told)}"])


def _quoted(text: str) -> str:
    return textwrap.indent(text, "    | ", lambda _line: True)


def _now(status: dict[str, Any], second: Act) -> str:
    release = status["release"] or {}
    answering = "healthy" if status["healthy"] else "not healthy"
    same = "v2" if release.get("id") == second.record["release"] else "NOT v2"
    return f"now at {status['url']}: {release.get('id', 'nothing')} ({same}), {answering}"


def _problems(acts: tuple[Act, Act, Act], status: dict[str, Any], heard: str) -> str:
    first, second, third = acts
    release = status["release"] or {}
    expectations: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("v1 is not live", lambda: first.code == 0),
        ("v2 is not live", lambda: second.code == 0),
        ("the Master was not asked for v2", lambda: bool(second.asked)),
        ("the agent does not tell of v2", lambda: bool(heard)),
        ("the broken v3 was not refused", lambda: third.code in (3, 4)),
        ("v2 does not answer", lambda: bool(status["healthy"])),
        ("another release than v2 is live", lambda: release.get("id") == second.record["release"]),
    )
    return "; ".join(text for text, holds in expectations if not holds())
