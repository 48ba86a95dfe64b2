"""One job as JSON: the call that is made most, by all who watch it.

It is made once for what there is to show, and not once for each of them: what was read of the job is compared with what was
read when it was made last. Nothing is shown that is older than the call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select

from service.database import Database
from service.database.tables import Job, is_id
from service.dispatcher import Dispatcher
from service.jobs.summary import counted, summaries
from service.jobs.views import job_view
from service.problems import NotFound

REMEMBERED = 100  # jobs, of some ten kilobytes each: those that are watched at a time

_COLUMNS = Job.__table__.c
# Of the bare table: to make an object of the row takes four times as long as to find it.
_ROW = select(*_COLUMNS).where(_COLUMNS.id == bindparam("job_id"))


@dataclass(frozen=True)
class _Made:
    """JSON, and all that it was made from: best one and front follow from the row (``service.jobs.summary``)."""

    row: tuple[Any, ...]
    counts: dict[str, int]
    home: str | None
    text: str


_remembered: OrderedDict[str, _Made] = OrderedDict()  # by job
_turn = threading.Lock()


def shown(database: Database, job_id: str, dispatcher: Dispatcher) -> str:
    """The ``JobView`` of a job as a user sees it; raises ``NotFound``."""
    with database.read() as session:
        row = session.connection().execute(_ROW, {"job_id": job_id}).one_or_none() if is_id(job_id) else None
        if row is None or not database.shows(row.owner):
            raise NotFound("job", job_id)
        counts, home = counted(session, [job_id]), dispatcher.home
        known = _recalled(job_id)
        if known is not None and (known.row, known.counts, known.home) == (tuple(row), counts[job_id], home):
            return known.text
        job = Job(**row._mapping)
        summary = summaries(session, [job], counts)[job_id]
    text = job_view(job, summary, dispatcher.dashboard(job)).model_dump_json()
    with _turn:
        _remembered[job_id] = _Made(tuple(row), counts[job_id], home, text)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return text


def _recalled(job_id: str) -> _Made | None:
    with _turn:
        known = _remembered.get(job_id)
        if known is not None:
            _remembered.move_to_end(job_id)
    return known
