"""Everything an operator can set, as ``SECATEUR_*`` environment variables or arguments of ``secateur serve``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pruners.errors import InvalidInput
from workers.refusal import refusal

GIB = 2**30

# Of a prefix, what needs no quoting anywhere and leads nowhere else.
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*/?")


class Settings(BaseSettings):
    """The service's settings; each has a default that works on one machine."""

    model_config = SettingsConfigDict(env_prefix="SECATEUR_", frozen=True, validate_default=True)

    data_dir: Path = Field(Path("secateur-data"), description="Database, store, token and Ray's state by default.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; unset: SQLite in data_dir.")
    store: str | None = Field(
        None, description="Folder for uploads and checkpoints, or s3://BUCKET[/PREFIX]; unset: data_dir/store."
    )
    ray_address: str | None = Field(
        None, description="Ray's dashboard and Jobs API, http://head:8265; unset: a Ray of our own on this machine."
    )
    ray_dashboard: str | None = Field(
        None, description="Where people find Ray's dashboard, if that is another address than ray_address, for links."
    )
    ray_auth_token: SecretStr | None = Field(None, description="Token of the Ray at ray_address, if it asks for one.")
    host: str = Field("127.0.0.1", description="Loopback, so that nothing is exposed unless asked for.")
    port: int = Field(8000, ge=0, lt=2**16)
    token: SecretStr | None = Field(None, description="Admin token; unset: made at first start, kept in data_dir/token.")
    max_model_bytes: int = Field(
        2 * GIB, gt=0, description="Upload limit; 500 million float32 parameters, beyond any classifier we know of."
    )
    max_dataset_bytes: int = Field(
        8 * GIB, gt=0, description="Upload limit; 50,000 images of 224×224 pixels, ample for search and report."
    )
    allow_code: bool = Field(
        False,
        description="Accept custom tasks, whose code runs in workers with all that these may: for trusted users alone.",
    )
    max_unpacked_bytes: int = Field(
        32 * GIB, gt=0, description="What a data set may take once its images are decoded, which is how it is stored."
    )
    upload_grace_seconds: int = Field(
        30, ge=1, description="Time to send a body in, beyond what upload_bytes_per_second allows for what has arrived."
    )
    upload_bytes_per_second: int = Field(
        4096, ge=1, description="The slowest line that is waited for; a request that sends less is ended."
    )
    max_running_jobs: int = Field(
        1,
        ge=1,
        description="Jobs at once. They share the cluster evenly, so that all go on; one that is alone takes all of it.",
    )
    user_max_jobs: int | None = Field(
        10, ge=0, description="Jobs of a new user's that have not ended, at most; 'secateur users set' changes one user's."
    )
    user_max_trials: int | None = Field(
        10_000, ge=0, description="Trials that those jobs plan, at most: a night or two of two workers."
    )
    user_max_bytes: int | None = Field(
        50 * GIB,
        ge=0,
        description="Of a new user's models, data sets and checkpoints: a few of the largest that are accepted.",
    )
    requests_per_second: float = Field(
        50.0, gt=0, description="Calls of one user, on the average over ten seconds: dozens of clients that watch jobs."
    )
    webhooks: bool = Field(True, description="Whether jobs may tell their events to addresses that their senders name.")
    webhook_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        (), description="Networks that webhooks may call besides public addresses, by commas: 10.1.0.0/16,127.0.0.1/32."
    )
    inspect_seconds: int = Field(
        120, ge=1, description="Limit of one inspection: importing torch takes seconds, reading the largest zoo model ten."
    )
    inspect_memory_bytes: int = Field(
        8 * GIB, gt=0, description="Address space of one inspection beyond twice the file: torch alone maps several GiB."
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """Job processes start in another folder."""
        return value.expanduser().absolute()

    @field_validator("store", mode="before")
    @classmethod
    def _place(cls, value: str | Path | None) -> str | None:
        if value is None or (isinstance(value, str) and _BUCKET.fullmatch(value)):
            return value
        if "://" in str(value):
            raise ValueError("give a folder, or s3://BUCKET or s3://BUCKET/PREFIX")
        return str(Path(value).expanduser().absolute())

    @field_validator("webhook_networks", mode="before")
    @classmethod
    def _by_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("token", "ray_auth_token")
    @classmethod
    def _not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("a blank token would let everybody in; unset it or choose a long random one")
        return value

    @field_validator("ray_address", "ray_dashboard")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("give the dashboard's address, such as http://head:8265")
        return value

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings from the environment, ``given`` first; raises ``InvalidInput`` naming the variable."""
        try:
            return cls(**given)
        except ValidationError as error:
            problem = error.errors()[0]
            name = "SECATEUR_" + str(problem["loc"][0]).upper()
            secret = "token" in name.lower()  # its value must not be repeated on a terminal or in a log
            raise refusal([{**problem, "loc": (name,), "input": None if secret else problem["input"]}]) from None

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'secateur.db'}"

    @property
    def store_at(self) -> str:
        """The store's folder, or its ``s3://BUCKET[/PREFIX]``."""
        return self.store or str(self.data_dir / "store")

    def check_exposure(self) -> None:
        """Raises ``InvalidInput`` if the API would be reachable from other machines with a token nobody chose."""
        if self.token is None and not is_loopback(self.host):
            raise InvalidInput(
                "host", self.host, "is reachable from other machines; set SECATEUR_TOKEN to a long random token first"
            )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, out of reach of others."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name, which may resolve to anything
        return False
