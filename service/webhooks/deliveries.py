"""Makes the deliveries: looks for those that are due, and posts each to an address that was checked."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import httpx2
import structlog
from starlette.concurrency import run_in_threadpool

from pruners.errors import reason
from service.database import Database, DatabaseAway
from service.webhooks.addresses import AddressRefused, Network, Resolve, permitted, port_of, resolve
from service.webhooks.messages import Message
from service.webhooks.outbox import Outbox

LOOK_SECONDS = 1.0  # a short query; a person who waits for a message does not notice
_MOST_AT_ONCE = 16  # jobs whose deliveries are made at a time: a receiver that hangs holds one of them for ten seconds
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0  # for all of a delivery, connecting included: a receiver that has much to do answers first

log = structlog.get_logger()


class Undelivered(Exception):
    """A try that came to nothing; the text is the reason."""


class Deliveries:
    """Delivers until cancelled.

    Args:
        database: as the service sees it.
        allowed: networks that may be called besides the public ones.
        resolver: replaces the system's in tests.
    """

    def __init__(self, database: Database, allowed: Sequence[Network], resolver: Resolve = resolve) -> None:
        self._outbox = Outbox(database)
        self._allowed = allowed
        self._resolver = resolver
        self._tls: ssl.SSLContext | None = None
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Looks again and again."""
        try:
            while True:
                try:
                    await self.start_due()
                except DatabaseAway as error:
                    log.warning("webhooks_wait", reason=str(error))
                except Exception:  # the loop must outlive whatever it meets
                    log.exception("webhooks_failed")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._running.values():
                task.cancel()
            await self.finish()

    async def start_due(self) -> None:
        """Takes up every job that has something to be delivered, as far as there is room."""
        self._running = {job: task for job, task in self._running.items() if not task.done()}
        room = _MOST_AT_ONCE - len(self._running)
        if room <= 0:
            return
        for job in await run_in_threadpool(self._outbox.due, _MOST_AT_ONCE):
            if job not in self._running and room > 0:
                self._running[job] = asyncio.create_task(self._deliver_all(job))
                room -= 1

    async def finish(self) -> None:
        """Waits for what was taken up."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _deliver_all(self, job_id: str) -> None:
        """What a job has to tell, one after the other, until one does not arrive."""
        try:
            while (message := await run_in_threadpool(self._outbox.take, job_id)) is not None:
                if not await self._deliver(message):
                    return
        except DatabaseAway as error:  # the lease will end
            log.warning("webhooks_wait", job=job_id, reason=str(error))
        except Exception:
            log.exception("webhooks_failed", job=job_id)

    async def _deliver(self, message: Message) -> bool:
        began = time.monotonic()
        about = {"job": message.job_id, "delivery": message.id, "tries": message.tries}
        try:
            address, status = await self._post(message)
        except Undelivered as error:
            log.warning("webhook_undelivered", **about, reason=str(error))
            await _to_its_end(run_in_threadpool(self._outbox.failed, message, str(error)))
            return False
        except asyncio.CancelledError:  # the service ends, and nobody knows whether it arrived
            await _to_its_end(run_in_threadpool(self._outbox.released, message))
            raise
        log.info("webhook_delivered", **about, address=address, status=status, seconds=round(time.monotonic() - began, 3))
        await _to_its_end(run_in_threadpool(self._outbox.delivered, message, address, status))
        return True

    async def _post(self, message: Message) -> tuple[str, int]:
        """Posts a message; the address that took it and its status. Raises ``Undelivered``."""
        url = httpx2.URL(message.url)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                addresses = await permitted(url.raw_host.decode(), port_of(url), self._allowed, self._resolver)
                for last, address in enumerate(addresses, 1 - len(addresses)):
                    try:
                        return address, await self._post_to(message, url, address)
                    except httpx2.ConnectError:
                        if last == 0:
                            raise
        except AddressRefused as error:
            raise Undelivered(str(error)) from error
        except (httpx2.TransportError, httpx2.InvalidURL, OSError) as error:  # TimeoutError is an OSError
            late = isinstance(error, TimeoutError | httpx2.TimeoutException)
            said = "it did not answer in time" if late else reason(error)
            raise Undelivered(f"{said}.") from error
        raise AssertionError("a host has one address at least")

    async def _post_to(self, message: Message, url: httpx2.URL, address: str) -> int:
        """One request to that very address, on a connection of its own: no cookies, no proxy, no redirect, no reuse."""
        request = httpx2.Request(
            "POST",
            url.copy_with(host=address),
            headers={**message.headers(int(time.time())), "host": url.netloc.decode()},
            content=message.body,
            extensions={
                "sni_hostname": url.raw_host.decode(),  # the certificate is to be that of the name
                "timeout": httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS).as_dict(),
            },
        )
        if self._tls is None:
            self._tls = await run_in_threadpool(httpx2.create_ssl_context, trust_env=False)
        async with httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            await response.aclose()  # its head says all that is asked for; what follows may have no end
        if not response.is_success:
            raise Undelivered(f"it was answered {response.status_code}, and 2xx is what counts.")
        return response.status_code


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Awaits it also where the service ends meanwhile: what was delivered is to be on record, or it is delivered again."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
