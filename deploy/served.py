"""How a release is served: by the settings it was made with, whatever they are by now."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from deploy.releases import Release

if TYPE_CHECKING:
    from deploy.settings import Settings

SECTIONS = ("app", "smoke")


class Section(SimpleNamespace):
    """Settings as they arrive on a host: checked already, so that their keys are all they have."""


def section(value: Any) -> Any:
    """Given settings as JSON, return them as they are used on a host."""
    return json.loads(json.dumps(value), object_hook=lambda item: Section(**item))


def remembered(settings: Settings) -> dict[str, Any]:
    """Return what a release must remember of the settings that it is made with."""
    return {name: getattr(settings, name).model_dump(mode="json") for name in SECTIONS}


def own(settings: Settings, release: Release | None) -> Settings:
    """Return the settings as a release needs them: its services, port, paths and checks.

    One that remembers none, or what nobody understands any more, needs those of now; so does
    none at all.
    """
    if release is None or not release.served:
        return settings
    if isinstance(settings, Section):
        known = {name: section(value) for name, value in release.served.items()}
        return cast("Settings", Section(**{**vars(settings), **known}))
    try:
        found = {
            name: type(getattr(settings, name)).model_validate_json(json.dumps(value))
            for name, value in release.served.items()
        }
    except ValueError:
        return settings
    return settings.model_copy(update=found)
