"""What invoke.yaml and the environment say, as frozen values."""

from deploy.settings.load import garbled, load, parse
from deploy.settings.schema import App, Check, Deploy, Environment, Proxy, Settings

__all__ = [
    "App",
    "Check",
    "Deploy",
    "Environment",
    "Proxy",
    "Settings",
    "garbled",
    "load",
    "parse",
]
