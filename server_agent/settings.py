"""What the agent is told by its environment."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Literal

import psycopg2
from psycopg2.extensions import parse_dsn
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass


def _database(address: str) -> str:
    try:
        port = parse_dsn(address).get("port", "")
    except (psycopg2.Error, UnicodeError):
        port = "none"  # libpq's own words quote the address, and so the password
    # A password with an unescaped slash ends up in the port, and would be quoted in every error.
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError("is no address of a PostgreSQL database")
    return address


Address = Annotated[
    str, Field(pattern="^(https?://.*)?$"), AfterValidator(lambda url: url.rstrip("/"))
]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Count = Annotated[int, Field(ge=0, lt=10**15)]


@dataclass(frozen=True)
class Settings:
    """The agent's settings, each called as its variable; secrets do not show in its repr."""

    database_url: Annotated[str, AfterValidator(_database)] = Field(repr=False)
    telegram_api_token: str = Field(default="", repr=False)  # empty: Telegram is disabled
    telegram_api_base: Address = "https://api.telegram.org"
    master_chat_id: str = ""  # the only chat that gets answers
    telegram_webhook_secret: str = Field(default="", repr=False)
    deploy_url: Address = ""  # the listener that is told to deploy; empty: nobody is
    deploy_branch: str = "main"  # the one that it deploys
    webhook_secret: str = Field(default="", repr=False)  # what proves to it that it is us
    public_url: Address = ""  # where Telegram reaches us; empty: we ask it for updates
    model_url: Address = ""  # an OpenAI-compatible server, up to `/chat/completions`
    model_name: str = ""
    model_api_key: str = Field(default="", repr=False)
    tokens_per_day: Count = 100_000  # days and months are those of UTC
    tokens_per_month: Count = 1_000_000
    engine_url: Address = ""  # a door to the Docker engine that lets through what we may do
    facts_dir: str = ""  # where the deployment pipeline tells what it did; empty: nowhere
    data_dir: str = "."  # on the disk that is looked at
    disk_free_percent: Count = 10  # less is too little
    look_seconds: int = Field(default=60, gt=0, lt=10**15)  # between two looks at the server
    log_dir: str = ""  # where log files are written beside stdout; empty: nowhere
    vcs_ref: str = "unknown"  # the commit we are made of
    build_date: str = "unknown"
    version: str = "unknown"
    log_level: Annotated[Level, BeforeValidator(str.upper)] = "INFO"
    host: str = "0.0.0.0"  # noqa: S104 - inside its container; nothing is published
    port: int = Field(default=8000, gt=0, lt=65536)


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings that an environment holds; an empty variable is one that is not set.

    Raises:
        ValueError: Some cannot be used; the text names them all, and holds no secret.
    """
    names = [field.name for field in fields(Settings)]
    given = {name: environ[name.upper()] for name in names if environ.get(name.upper())}
    if "public_url" in given and "telegram_webhook_secret" not in given:
        raise ValueError("PUBLIC_URL is set, but not TELEGRAM_WEBHOOK_SECRET, which guards it")
    if "deploy_url" in given and "webhook_secret" not in given:
        raise ValueError("DEPLOY_URL is set, but not WEBHOOK_SECRET, which it asks for")
    try:
        return TypeAdapter(Settings).validate_python(given)
    except ValidationError as error:
        wrong = error.errors(include_input=False)
    raise ValueError("; ".join(f"{str(it['loc'][0]).upper()} {_why(it['msg'])}" for it in wrong))


def _why(said: str) -> str:
    words = said.removeprefix("Value error, ").removeprefix("Input ")
    return "is not set" if words == "Field required" else words
