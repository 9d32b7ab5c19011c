"""`deploy/.env.example`, written from the settings themselves."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pricebook.core.settings import Group, Settings

_HEAD = """\
# Every setting of Pricebook with its default; `pricebook settings-example` writes this file.
# Uncomment a line to change it. Nothing reads this file by itself: hand it to the processes
# with systemd's EnvironmentFile, `docker --env-file` and the like.
"""


def settings_example() -> str:
    """Return the whole file."""
    lines = [_HEAD, *_lines(Settings, "PRICEBOOK_")]
    return "\n".join(lines) + "\n"


def _lines(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Group):
            yield f"\n# {group.__doc__}"
            yield from _lines(group, f"{prefix}{name.upper()}__")
        else:
            yield f"# {field.description}"
            yield f"#{prefix}{name.upper()}={_shown(field)}"


def _shown(field: FieldInfo) -> str:
    default: Any = field.default
    if default is None:
        return ""
    if isinstance(default, tuple | bool):
        return json.dumps(default)
    return str(default)
