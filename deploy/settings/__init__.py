"""What invoke.yaml and the environment say, as frozen values."""

from deploy.settings.load import FILE, garbled, load, parse
from deploy.settings.schema import (
    LONGEST_KEPT,
    App,
    Check,
    Deploy,
    Environment,
    Keep,
    Migrate,
    Proxy,
    Settings,
    Webhook,
)

__all__ = [
    "FILE",
    "LONGEST_KEPT",
    "App",
    "Check",
    "Deploy",
    "Environment",
    "Keep",
    "Migrate",
    "Proxy",
    "Settings",
    "Webhook",
    "garbled",
    "load",
    "parse",
]
