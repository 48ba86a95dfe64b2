"""Secateur from Python: ``from service.client import Client``."""

from service.client.client import AsyncClient, Client
from service.client.connection import RequestRefused, ServerUnreachable
from service.client.job import AsyncJob, Job

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job", "RequestRefused", "ServerUnreachable"]
