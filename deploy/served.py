"""How a release is served: by the settings it was made with, whatever they are by now."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from deploy.releases import Release

if TYPE_CHECKING:
    from deploy.settings import Settings

SECTIONS = ("app", "smoke")


class Section(SimpleNamespace):
    """Settings as they arrive on a host: checked already, so that their keys are all they have.

    They are copied and passed on by the same words as those that were read from invoke.yaml.
    """

    def model_copy(self, *, update: Mapping[str, Any]) -> Section:
        """Return them with some of their values replaced."""
        return Section(**{**vars(self), **update})

    def model_dump(self, *, mode: Literal["json"], exclude: Container[str] = ()) -> dict[str, Any]:  # noqa: ARG002 - as with pydantic
        """Return them as JSON, but for some of their keys."""
        kept = {key: value for key, value in vars(self).items() if key not in exclude}
        return dict(json.loads(json.dumps(kept, default=vars)))


def section(value: Any) -> Any:
    """Given settings as JSON, return them as they are used on a host."""
    if isinstance(value, Mapping):
        return Section(**{key: section(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(section(item) for item in value)
    return value


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
    try:
        found = {
            name: _alike(getattr(settings, name), value) for name, value in release.served.items()
        }
    except ValueError:
        return settings
    return settings.model_copy(update=found)


def _alike(now: Any, value: Any) -> Any:
    if isinstance(now, Section):
        return section(value)
    return type(now).model_validate_json(json.dumps(value))
