"""The real service on a real socket, in a thread; inspections and Ray are the test's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from service.protocol import HeadsInTime


@contextmanager
def serving(app: FastAPI) -> Iterator[tuple[str, int]]:
    """The address on which the app answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, http=HeadsInTime, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:  # who connects before it is ready waits in the listener's queue
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()
