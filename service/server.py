"""Runs the API under uvicorn: what ``secateur serve`` calls."""

from __future__ import annotations

from functools import partial

import uvicorn

from service.app import create_app
from service.database import Database
from service.database.migrate import upgrade
from service.jobs.log import patiently
from service.logs import configure_logging
from service.protocol import HeadsInTime
from service.settings import Settings

DRAIN_SECONDS = 2  # for running requests at shutdown; streams end by themselves, a longer download is resumed by its client


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        InvalidInput: the settings would expose the API without a chosen token.
    """
    settings.check_exposure()
    configure_logging()
    _await_database(settings.database)
    server: uvicorn.Server
    app = create_app(settings, leaving=lambda: server.should_exit)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HeadsInTime,
        loop="uvloop",
        log_config=None,  # ours are configured
        access_log=False,  # service.requests writes one line per request
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run()


def _await_database(url: str) -> None:
    """Until it answers and has this version's tables: both may be started at once."""
    database = Database(url)
    try:
        patiently(partial(upgrade, database))
    finally:
        database.close()
