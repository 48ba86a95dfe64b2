"""Answers for plots, packed by gzip: columns of figures shrink to a third.

No page is packed, nor what the API answers: how far a text shrinks tells of what it holds twice, and pages hold a secret beside
what others may have sent (the BREACH attack). What plots ask for holds no secret, and nothing of the request.
"""

from __future__ import annotations

import gzip
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

_LEAST = 1000  # bytes; packed, fewer still fill one packet
_LEVEL = 5  # behind which time doubles and bytes hardly shrink


def packed(request: Request, content: Any) -> Response:
    """JSON, packed if the browser takes it so."""
    answer = JSONResponse(content, headers={"Vary": "Accept-Encoding"})
    if "gzip" in request.headers.get("accept-encoding", "") and len(answer.body) >= _LEAST:
        answer.body = gzip.compress(answer.body, _LEVEL, mtime=0)
        answer.headers["content-encoding"] = "gzip"
        answer.headers["content-length"] = str(len(answer.body))
    return answer
