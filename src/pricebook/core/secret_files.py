"""Settings from files: each is named as its variable, and holds what that would."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import EnvSettingsSource

from pricebook.core.mendable import MendableError

FOLDER = "PRICEBOOK_SECRETS_DIR"


class SecretFilesError(MendableError):
    """The folder that is named cannot be read."""


class SecretFiles(EnvSettingsSource):
    """The files of the folder in PRICEBOOK_SECRETS_DIR: secrets that no list of processes shows."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        folder = os.environ.get(FOLDER)
        return _read(Path(folder)) if folder else {}


def _read(folder: Path) -> dict[str, str | None]:
    """Read what belongs to us; other files may lie there, as links of Kubernetes do."""
    try:
        return {
            path.name.lower(): path.read_text("utf-8").strip() or None
            for path in folder.iterdir()
            if path.name.lower().startswith("pricebook_") and path.is_file()
        }
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no text"
        message = f"{getattr(error, 'filename', None) or folder}: {reason}: correct {FOLDER}"
        raise SecretFilesError(message) from None
