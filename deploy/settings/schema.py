"""The schema of invoke.yaml: frozen values, and no key that nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticKnownError

from deploy import refs


def _branch(name: str) -> str:
    # A push tells its branch by its plain name: another would never be the one that is deployed.
    if not refs.is_plain_branch(name):
        raise PydanticKnownError("string_pattern_mismatch", {"pattern": "git check-ref-format"})
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
Branch = Annotated[str, Field(pattern=r"^[^\s-]\S*$", max_length=200), AfterValidator(_branch)]
Project = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Folder = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$", max_length=120)]
Relative = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_./-]*$", max_length=120)]
HttpPath = Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=200)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
LONGEST_KEPT = 36_500  # days; a date before the year 1 is none
Days = Annotated[int, Field(ge=1, le=LONGEST_KEPT)]


class Section(BaseModel):
    """A part of invoke.yaml: frozen, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Deploy(Section):
    """What is deployed, and where to."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@:\[\]-]*$")] = "local"
    project: Project
    title: str
    root: Folder
    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    compose_file: Relative = "docker-compose.yml"
    env_example: Relative = ".env.example"
    pass_env: tuple[Name, ...] = ()
    minimum_free_mb: Annotated[int, Field(ge=0)] = 1024
    keep_releases: Annotated[int, Field(ge=2, le=1000)] = 5
    build_cache_mb: Annotated[int, Field(ge=0)] = 5120


class Git(Section):
    """Where the code comes from when the host fetches it; the URL may hold a password."""

    url: Annotated[str, Field(exclude=True)] = ""
    branch: Branch = "main"


class App(Section):
    """The services of a release, the first of which takes the traffic."""

    services: Annotated[tuple[Name, ...], Field(min_length=1)] = ("app",)
    accessories: tuple[Name, ...] = ()
    port: Port = 8000
    health_path: HttpPath = "/health"
    log_files: tuple[Name, ...] = ()


class Proxy(Section):
    """The front door."""

    image: str = "caddy:2"
    container: Name
    network: Name
    port: Port = 8000
    bind: str = "0.0.0.0"  # noqa: S104 - a server's front door; the local target overrides it
    domain: Annotated[str, Field(pattern=r"^([a-z0-9-]+(\.[a-z0-9-]+)+)?$")] = ""
    certificates: Annotated[str, Field(pattern=r"^(acme|internal|https://[!-~]+)$")] = "acme"
    certificate_timeout: Seconds = 90
    max_body_mb: Annotated[int, Field(ge=1, le=100_000)] = 10
    max_header_kb: Annotated[int, Field(ge=4, le=1024)] = 32
    body_timeout: Seconds = 60
    drain_timeout: Seconds = 30


class Build(Section):
    """How the image is built."""

    dockerfile: Relative = "Dockerfile"
    version: str = ""
    deadline: Seconds = 1800


class Tests(Section):
    """The release's own tests; without a compose file there are none."""

    __test__ = False  # pytest takes any Test* class for a suite

    compose_file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]*$")] = ""
    service: Name = "test"
    coverage_threshold: Annotated[float, Field(ge=0, le=100)] = 70
    deadline: Seconds = 1200


class Keep(Section):
    """How many days, weeks and months keep the newest of their backups."""

    daily: Annotated[int, Field(ge=0)] = 0
    weekly: Annotated[int, Field(ge=0)] = 0
    monthly: Annotated[int, Field(ge=0)] = 0


SSH_PLACE = r"ssh:[A-Za-z0-9_][A-Za-z0-9_.@-]*:[A-Za-z0-9_./][A-Za-z0-9_./-]*"
RCLONE_PLACE = r"rclone::?[A-Za-z0-9_][A-Za-z0-9_.-]*:[A-Za-z0-9_./][A-Za-z0-9_./-]*"
AGE_KEY = "age1[02-9ac-hj-np-z]{58}"
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}( [A-Za-z0-9@._-]+)?"


class Database(Section):
    """The PostgreSQL service of the compose file, or how another is reached; or no backups."""

    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    client_image: Annotated[str, Field(pattern=r"^([a-z0-9][A-Za-z0-9_.:/@-]*)?$")] = ""
    backup_prefix: Name = "backup"
    keep_days: Days = 14
    keep: Keep = Keep()
    keep_min: Annotated[int, Field(ge=1)] = 3
    max_age_hours: Annotated[float, Field(gt=0, le=24 * LONGEST_KEPT)] = 26
    schedule: Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9])?$")] = ""
    encrypt_to: Annotated[str, Field(pattern=f"^({AGE_KEY}|{SSH_KEY})?$")] = ""
    copy_to: Annotated[str, Field(pattern=f"^({SSH_PLACE}|{RCLONE_PLACE})?$")] = ""
    deadline: Seconds = 3600

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Database:
        if self.service and self.client_image:
            raise ValueError("service must be empty where client_image is set")
        return self


class Migrate(Section):
    """The migration command, run in a container of the new image; empty for none."""

    command: tuple[str, ...] = ()
    heads_query: str = ""
    versions: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]*$", max_length=120)] = (
        "migrations/versions"
    )
    lock_timeout: Seconds = 5
    rehearse_max_mb: Annotated[int, Field(ge=0)] = 2048
    deadline: Seconds = 600


class Health(Section):
    """When a release counts as healthy."""

    startup_wait: Seconds = 10
    interval: Seconds = 0.1
    consecutive: Annotated[int, Field(ge=1, le=100)] = 3
    timeout: Seconds = 5


class Check(Section):
    """One smoke test: a GET, and what its answer must be."""

    name: Name
    path: HttpPath = "/"
    status: Annotated[int, Field(ge=100, le=599)] = 200
    field: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]*$")] = ""
    one_of: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _field_goes_with_one_of(self) -> Check:
        if bool(self.field) != bool(self.one_of):
            raise ValueError("field and one_of go together")
        return self


class Smoke(Section):
    """What a release must show before, and again after, it takes the traffic."""

    checks: tuple[Check, ...] = ()
    retry_seconds: Annotated[float, Field(ge=0, le=600)] = 5
    responsive_seconds: Seconds = 2
    minimum_free_disk_percent: Annotated[float, Field(ge=0, le=100)] = 5
    minimum_free_memory_percent: Annotated[float, Field(ge=0, le=100)] = 5
    maximum_restarts: Annotated[int, Field(ge=0)] = 0
    watch_seconds: Annotated[float, Field(ge=0, le=3600)] = 8
    watch_failed_percent: Annotated[float, Field(ge=0, le=100)] = 5


class Budget(Section):
    """What the smoke tests of a release may spend, and where it says what it has spent."""

    field: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]*$")] = ""
    smoke_tokens: Annotated[int, Field(ge=0)] = 2000


class Approval(Section):
    """How the Master is asked for his word, and how the application tells what he said."""

    timeout: Seconds = 1800
    request_query: str = ""
    decision_query: str = ""
    withdraw_query: str = ""

    @model_validator(mode="after")
    def _all_or_none(self) -> Approval:
        queries = (self.request_query, self.decision_query, self.withdraw_query)
        if any(queries) and not all(queries):
            raise ValueError("request_query, decision_query and withdraw_query go together")
        return self


class Secrets(Section):
    """Where made-up secrets may stand in the repository."""

    examples: tuple[Relative, ...] = ()


class Webhook(Section):
    """Where GitHub or GitLab tell of a push."""

    path: Annotated[
        str, Field(pattern=r"^((/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+)?$", max_length=120)
    ] = ""


class Telegram(Section):
    """How the Master is told; the token comes from the environment alone."""

    deadline: Seconds = 30


class Environment(Section):
    """What comes from the environment, and from nowhere else."""

    telegram_token: SecretStr = SecretStr("")
    telegram_api_base: str = "https://api.telegram.org"
    master_chat_id: str = ""
    passed: Mapping[str, SecretStr] = {}


class Settings(Section):
    """Everything a run needs to know."""

    deploy: Deploy
    app: App = App()
    proxy: Proxy
    git: Git = Git()
    build: Build = Build()
    tests: Tests = Tests()
    database: Database = Database()
    migrate: Migrate = Migrate()
    health: Health = Health()
    smoke: Smoke = Smoke()
    budget: Budget = Budget()
    approval: Approval = Approval()
    webhook: Webhook = Webhook()
    telegram: Telegram = Telegram()
    secrets: Secrets = Secrets()
    environment: Environment = Environment()
