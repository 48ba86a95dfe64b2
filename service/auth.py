"""The admin token: where it comes from, and the check on every call."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.problems import Unauthorized
from service.settings import Settings

TOKEN_BYTES = 32  # 256 bits: not to be guessed

_bearer = HTTPBearer(auto_error=False, description="The admin token; `secateur serve` prints it at first start.")


def admin_token(settings: Settings) -> str:
    """``SECATEUR_TOKEN``, or else the one kept in the data folder, made there on first use."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    path = settings.data_dir / "token"
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(TOKEN_BYTES))
    return path.read_text().strip()


def require_token(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Dependency of every protected route; raises ``Unauthorized``."""
    if credentials is None:
        raise Unauthorized("Authorization is missing; send the header 'Authorization: Bearer TOKEN'.")
    expected: str = request.app.state.token
    if not hmac.compare_digest(credentials.credentials.encode(), expected.encode()):
        raise Unauthorized("The token is not this server's; use the one that 'secateur serve' saved or SECATEUR_TOKEN.")


def _write_once(path: Path, text: str) -> None:
    """Creates the file whole and readable by its owner alone; of two writers at once the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
