#!/usr/bin/env python3
"""A container's health check: ``answers URL`` ends with 0 if that URL is answered well, with Ray's token if there is one."""

import os
import sys
from urllib.request import Request, urlopen

SECONDS = 10.0  # a busy Ray head takes several

token = os.environ.get("RAY_AUTH_TOKEN")
headers = {"Authorization": f"Bearer {token}"} if token else {}
try:
    urlopen(Request(sys.argv[1], headers=headers), timeout=SECONDS).close()  # noqa: S310  (loopback, named by the compose file)
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
