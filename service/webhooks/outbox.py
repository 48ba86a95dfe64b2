"""The deliveries that are still to be made: written in the transaction that writes their event, deleted once they are made.

Of each job's the oldest comes first, and the others wait for it. Whoever makes a delivery holds a lease on it for a moment; if
nothing more is heard, another process makes it again, with the same id. So every event arrives in order, and seldom twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select

from service.database import Database, now
from service.database.tables import AuditEntry, Delivery, Event, Job
from service.jobs.states import announce
from service.webhooks.messages import Message, compose

LEASE_SECONDS = 60.0  # beyond the time limits of a delivery, so that no other process takes one up that is being made

RETRY_SECONDS = (5, 30, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600)
"""Behind each try that failed: 18 hours in all, in which a receiver that broke in the night is mended in the morning."""


class Outbox:
    """The deliveries' rows, of all users.

    Args:
        database: as the service sees it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, most: int) -> Sequence[str]:
        """Jobs whose oldest delivery is to be made now, the longest due first."""
        oldest = select(func.min(Delivery.event_id)).group_by(Delivery.job_id)
        with self._database.read() as session:
            ready = select(Delivery.job_id).where(Delivery.event_id.in_(oldest), Delivery.due_at <= now(session))
            return session.scalars(ready.order_by(Delivery.due_at).limit(most)).all()

    def take(self, job_id: str) -> Message | None:
        """The job's oldest delivery, to be made within the lease; ``None`` if it is not due, or another process makes it."""
        oldest = select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.event_id).limit(1)
        with self._database.write() as session:
            delivery = session.scalar(oldest.with_for_update())  # waits: to skip it would be to pass on to the next one
            moment = now(session)
            if delivery is None or delivery.due_at > moment:
                return None
            delivery.due_at = moment + timedelta(seconds=LEASE_SECONDS)
            delivery.tries += 1
            return compose(session.get_one(Job, job_id), session.get_one(Event, delivery.event_id), delivery.tries)

    def delivered(self, message: Message, address: str, status: int) -> None:
        """It has arrived, and this is on record."""
        with self._database.write() as session:
            session.execute(delete(Delivery).where(Delivery.event_id == message.event_id))
            session.add(
                AuditEntry(
                    user=message.owner,
                    address=address,
                    method="POST",
                    path=message.url,
                    status=status,
                    made=f"/jobs/{message.job_id}/events",
                    request_id=message.id,
                )
            )

    def released(self, message: Message) -> None:
        """It was not made to its end: as if it had not been taken, so that nobody waits for the lease to end."""
        with self._database.write() as session:
            delivery = session.get(Delivery, message.event_id, with_for_update=True)
            if delivery is not None and delivery.tries == message.tries:
                delivery.due_at = now(session)
                delivery.tries -= 1

    def failed(self, message: Message, reason: str) -> None:
        """It has not arrived: it is tried again later, or behind the last try given up, with all that waits behind it.

        What the job tells afterwards is tried again from the beginning.
        """
        with self._database.write() as session:
            job = session.get(Job, message.job_id, with_for_update=True)  # first, as whoever deletes a job does
            delivery = session.get(Delivery, message.event_id, with_for_update=True)
            if job is None or delivery is None or delivery.tries != message.tries:
                return  # another process made it, or takes care of it, or the job was deleted
            if message.tries <= len(RETRY_SECONDS):
                delivery.due_at = now(session) + timedelta(seconds=RETRY_SECONDS[message.tries - 1])
                return
            session.execute(delete(Delivery).where(Delivery.job_id == message.job_id))
            announce(session, job, "webhook", {"message": f"The webhook was given up after {message.tries} tries: {reason}"})
