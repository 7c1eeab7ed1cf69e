"""invoke.yaml and the environment become settings; every problem is listed at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from deploy.dotenv import parse_env
from deploy.outcome import Invalid
from deploy.settings.schema import Check, Environment, Settings

FILE = "invoke.yaml"
PRIVATE = re.compile("AGE-SECRET-KEY|PRIVATE KEY", re.IGNORECASE)
# What a setting must be that has a pattern, in words.
PLAIN = "a plain word of letters, digits and . _ -"
WANTED = {
    "branch": "a branch's plain name such as main",
    "certificates": "acme, internal, or the https address of an ACME directory",
    "client_image": "an image such as postgres:17-bookworm",
    "compose_file": "a file of the project",
    "copy_to": "ssh:HOST:FOLDER or rclone:REMOTE:FOLDER",
    "dockerfile": "a file of the project",
    "domain": "a domain such as shop.example.org",
    "encrypt_to": "a public key: age1... or ssh-ed25519 AAAA...",
    "env_example": "a file of the project",
    "health_path": "a path such as /health",
    "host": "local, or a host as ssh names it",
    "path": "a path such as /health",
    "project": "a word of small letters, digits, - and _",
    "root": "a whole path such as /srv/shop",
    "schedule": "a time of day in UTC such as 03:30",
    "url": "an address such as https://shop.example.org",
    "versions": "a folder of the project",
}
INVOKES_OWN = frozenset({"run", "runners", "sudo", "tasks", "timeouts", "debug"})


def load(folder: Path, environ: Mapping[str, str]) -> Settings:
    """Read invoke.yaml of a folder, and the environment.

    Args:
        folder: The project; a `.env` in it stands in for variables that are not set.
        environ: The process environment.

    Raises:
        Invalid: The file is missing, cannot be read, or holds anything wrong; every
            problem is named in one go.
    """
    path = folder / FILE
    try:
        data = _tuples(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise Invalid(
            "There is no invoke.yaml", where=str(folder), next_step="git checkout -- invoke.yaml"
        ) from error
    # Deeper than anybody writes by hand, or without an end: YAML can refer to itself.
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise garbled(error, str(path)) from error
    known = {**_dotenv(folder / ".env"), **environ}
    return parse(data, known, str(path))


def garbled(error: Exception, where: str) -> Invalid:
    """Return the failure for an invoke.yaml that is no YAML."""
    mark = getattr(error, "problem_mark", None)
    place = f"{where}:{mark.line + 1}" if mark else where
    return Invalid(
        "invoke.yaml cannot be read",
        where=place,
        why=str(getattr(error, "problem", None) or " ".join(str(error).split())),
        next_step="correct that line, or: git checkout -- invoke.yaml",
    )


def parse(data: Any, environ: Mapping[str, str], where: str) -> Settings:
    """Given the content of invoke.yaml and the environment, return the settings.

    Raises:
        Invalid: Anything is wrong; every problem is named in one go.
    """
    problems: list[str] = []
    settings: Settings | None = None
    if isinstance(data, dict):
        own = {key: value for key, value in data.items() if key not in INVOKES_OWN}
        overrides = _overrides(environ, problems)
        for section, values in overrides.items():
            if isinstance(own.get(section, {}), dict):
                own[section] = {**own.get(section, {}), **values}
        try:
            settings = Settings.model_validate(_tuples(own))
        except ValidationError as error:
            problems = [_sentence(item) for item in error.errors()] + problems
    else:
        problems.append(f"{FILE} must hold sections such as `deploy:`")
    problems += _path_problems(settings) if settings else []
    problems += _environment_problems(environ)
    if problems or settings is None:
        raise Invalid(
            f"{len(problems)} setting{'s are' if len(problems) > 1 else ' is'} wrong",
            where=where,
            why="; ".join(problems),
            next_step="correct invoke.yaml or the environment; its comments explain each key",
        )
    return settings.model_copy(update={"environment": _environment(environ, settings)})


def _tuples(value: Any) -> Any:
    """Return YAML's lists as the tuples that frozen settings hold."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _overrides(environ: Mapping[str, str], problems: list[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for variable, section, key in (
        ("COVERAGE_THRESHOLD", "tests", "coverage_threshold"),
        ("STARTUP_WAIT", "health", "startup_wait"),
    ):
        text = environ.get(variable, "")
        if text:
            try:
                found[section] = {key: float(text)}
            except ValueError:
                problems.append(f"{variable} must be a number, not {text[:40]!r}")
    return found


def _environment(environ: Mapping[str, str], settings: Settings) -> Environment:
    passed = {
        name: SecretStr(environ[name]) for name in settings.deploy.pass_env if environ.get(name)
    }
    return Environment(
        telegram_token=SecretStr(environ.get("TELEGRAM_API_TOKEN", "")),
        telegram_api_base=environ.get("TELEGRAM_API_BASE", "") or "https://api.telegram.org",
        master_chat_id=environ.get("MASTER_CHAT_ID", ""),
        passed=passed,
    )


def _path_problems(settings: Settings) -> list[str]:
    path, health = settings.webhook.path, settings.app.health_path.partition("?")[0]
    # The proxy takes small and capital letters for the same.
    if not path or path.casefold() != health.casefold():
        return []
    return [f"webhook.path must be another than app.health_path, not {path!r}"]


def _environment_problems(environ: Mapping[str, str]) -> list[str]:
    problems = []
    token = environ.get("TELEGRAM_API_TOKEN", "")
    if token and not re.fullmatch(r"\d{3,}:[A-Za-z0-9_-]{10,}", token):
        problems.append("TELEGRAM_API_TOKEN is not of the form 123456:ABC...")
    chat = environ.get("MASTER_CHAT_ID", "")
    if token and not re.fullmatch(r"-?\d+|@\w+", chat):
        problems.append("MASTER_CHAT_ID must be a chat's number when TELEGRAM_API_TOKEN is set")
    if (base := environ.get("TELEGRAM_API_BASE", "")) and not _is_url(base, {"http", "https"}):
        problems.append("TELEGRAM_API_BASE must be an http or https address")
    url = environ.get("DATABASE_URL", "")
    if url and not _is_url(url, {"postgresql", "postgres"}):
        problems.append("DATABASE_URL must look like postgresql://user:password@host:5432/database")
    problems.extend(
        f"{name} holds a line break or another control character"
        for name in ("TELEGRAM_API_TOKEN", "MASTER_CHAT_ID", "TELEGRAM_API_BASE", "DATABASE_URL")
        if re.search(r"[\x00-\x1f\x7f]", environ.get(name, ""))
    )
    return problems


def _is_url(text: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def _sentence(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        close = difflib.get_close_matches(str(key), _keys(tuple(parents)), n=1)
        return f"unknown key {place}" + (f" (did you mean {close[0]}?)" if close else "")
    if error["type"] == "missing":
        return f"{place} is missing"
    shown = repr(error.get("input"))
    if PRIVATE.search(shown):
        return f"{place} holds a private key: take it out, and name the public one"
    if error["type"] == "string_pattern_mismatch":
        return f"{place} must be {WANTED.get(str(error['loc'][-1]), PLAIN)}, not {shown[:60]}"
    return f"{place}: {error['msg']}, not {shown[:60]}"


def _keys(place: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in place:
        if isinstance(part, int):
            model = Check
            continue
        inner = model.model_fields[part].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return [key for key in model.model_fields if key != "environment"]


def _dotenv(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("The .env file cannot be read", where=str(path), why=str(error)) from error
    return parse_env(text, str(path))
