"""Secateur from Python: ``from service.client import Client``."""

from service.client.client import Client
from service.client.connection import RequestRefused, ServerUnreachable
from service.client.job import Job

__all__ = ["Client", "Job", "RequestRefused", "ServerUnreachable"]
