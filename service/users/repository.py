"""Users in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database import Database
from service.database.tables import User
from service.problems import NotFound
from service.users.quotas import Usage, usage


@dataclass(frozen=True)
class Quotas:
    """The most that a user may have; ``None`` is no limit."""

    max_jobs: int | None
    max_trials: int | None
    max_bytes: int | None


def ensure_user(session: Session, name: str, quotas: Quotas) -> None:
    """Makes a user with these quotas, unless there is one of that name."""
    if session.get(User, name) is None:
        session.add(User(name=name, **asdict(quotas)))
        session.flush()


class UserRepository:
    """The users' rows, each with what that user has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[tuple[User, Usage]]:
        """By name."""
        with self._database.read() as session:
            return [(user, usage(session, user.name)) for user in session.scalars(select(User).order_by(User.name))]

    def get(self, name: str) -> tuple[User, Usage]:
        """One user; raises ``NotFound``."""
        with self._database.read() as session:
            return _found(session, name), usage(session, name)

    def change(self, name: str, quotas: Mapping[str, int | None]) -> tuple[User, Usage]:
        """Sets those quotas that are named; raises ``NotFound``."""
        with self._database.write() as session:
            user = _found(session, name)
            for quota, most in quotas.items():
                setattr(user, quota, most)
            return user, usage(session, name)


def _found(session: Session, name: str) -> User:
    user = session.get(User, name) if "\0" not in name else None  # which PostgreSQL does not take
    if user is None:
        raise NotFound("user", name)
    return user
