"""Webhooks: what is sent where, how often, in which order, and where nothing is ever sent."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import queue
import ssl
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from service.app import create_app
from service.database import Database, now
from service.database.tables import AuditEntry, Delivery, Event, Job
from service.jobs.repository import JobRepository
from service.webhooks import deliveries as making
from service.webhooks.addresses import AddressRefused, is_permitted, permitted
from service.webhooks.deliveries import Deliveries
from service.webhooks.messages import signature
from service.webhooks.outbox import LEASE_SECONDS, RETRY_SECONDS, Outbox
from service.webhooks.schemas import usable
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, a_job, make_settings

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
HERE = [IPv4Network("127.0.0.0/8")]
SQLITE = pytest.mark.parametrize("kind", ["sqlite"])


class Receiver:
    """Somebody's server.

    Attributes:
        received: path, headers in lower case, and body of each request.
        answers: statuses, one per request; then 204.
        location: of a redirect.
        endless: whether its answers have no end.
        ready: set when it may answer.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/hook"
        self.received: queue.Queue[tuple[str, dict[str, str], bytes]] = queue.Queue()
        self.answers: deque[int] = deque()
        self.location = ""
        self.endless = False
        self.ready = threading.Event()
        self.ready.set()

    def all(self) -> list[tuple[str, dict[str, str], bytes]]:
        return [self.received.get_nowait() for _ in range(self.received.qsize())]

    def events(self) -> list[int]:
        return [json.loads(body)["data"]["event"] for _, _, body in self.all()]


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.received.put((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            receiver.ready.wait()
            self.send_response(receiver.answers.popleft() if receiver.answers else 204)
            if receiver.location:
                self.send_header("Location", receiver.location)
            if receiver.endless:
                self.end_headers()
                while not self.wfile.closed:
                    self.wfile.write(b"x" * 2**16)  # until whoever called goes away
            else:
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Callers that went away, which is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def hooked(database: Database, url: str, **webhook: Any) -> str:
    """The id of a queued job with a webhook, which has told nothing yet."""
    model, dataset, job = a_job(webhook={"url": url, "secret": SECRET, "events": ["state"], **webhook})
    model.sha256, dataset.sha256 = sha256(job.id.encode()).hexdigest(), sha256(job.id.encode()).hexdigest()
    with database.write() as session:
        session.add_all([model, dataset])
        session.flush()
        session.add(job)
        return job.id


def posted(api: TestClient, receiver: Receiver) -> str:
    """The id of a job that was just sent, with a webhook."""
    ids = {kind: api.post(f"/{kind}s", content=kind.encode()).json()["id"] for kind in ("model", "dataset")}
    sent = {**ids, "budget": {"ratio": 0.5}, "webhook": {"url": receiver.url, "secret": SECRET}}
    job: str = api.post("/jobs", json=sent).json()["id"]
    return job


def deliver(database: Database, **options: Any) -> None:
    """What is due now."""

    async def once() -> None:
        making = Deliveries(database, **{"allowed": HERE, **options})
        await making.start_due()
        await making.finish()

    asyncio.run(once())


def waiting(database: Database) -> list[Delivery]:
    with database.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.event_id)))


def let_time_pass(database: Database) -> None:
    """Whatever waits is due."""
    with database.write() as session:
        session.execute(update(Delivery).values(due_at=now(session) - timedelta(seconds=1)))


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its own libraries."""
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@SQLITE
def test_a_delivery_says_what_happened_and_who_says_so(database: Database, receiver: Receiver) -> None:
    job = hooked(database, receiver.url + "?from=secateur")
    before = datetime.now(UTC)
    JobRepository(database).pause(job)
    deliver(database)
    ((path, headers, body),) = receiver.all()
    assert path == "/hook?from=secateur"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    told = json.loads(body)
    with database.read() as session:
        event = session.scalars(select(Event)).one()
        audited = session.scalars(select(AuditEntry)).one()
    assert told == {
        "type": "job.state",
        "timestamp": event.created_at.isoformat(),
        "data": {"job": job, "name": "half", "event": event.id, **event.data},
    }
    assert told["data"]["state"] == "paused"
    assert headers["webhook-id"] == f"{job}-{event.id}"
    assert abs(datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC) - before) < timedelta(minutes=1)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(bytes(range(32)), signed, sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert (audited.user, audited.address, audited.path) == ("admin", "127.0.0.1", receiver.url + "?from=secateur")
    assert (audited.method, audited.status, audited.request_id) == ("POST", 204, headers["webhook-id"])
    assert waiting(database) == []
    deliver(database)
    assert receiver.all() == [], "once is enough"


@SQLITE
def test_without_a_secret_nothing_is_signed_and_only_what_was_asked_for_is_told(database: Database, receiver: Receiver) -> None:
    jobs = JobRepository(database)
    silent, told = hooked(database, receiver.url, events=["trial"]), hooked(database, receiver.url, secret=None)
    jobs.pause(silent)
    jobs.pause(told)
    deliver(database)
    ((_, headers, body),) = receiver.all()
    assert json.loads(body)["data"]["job"] == told
    assert "webhook-signature" not in headers


def test_events_arrive_in_order_and_wait_for_one_that_does_not(database: Database, receiver: Receiver) -> None:
    jobs = JobRepository(database)
    job, other = hooked(database, receiver.url), hooked(database, receiver.url)
    for _ in range(2):
        jobs.pause(job)
        jobs.resume(job)
    first, *rest = [delivery.event_id for delivery in waiting(database)]
    receiver.answers.extend([500])
    deliver(database)
    assert receiver.events() == [first]
    jobs.pause(other)
    others = waiting(database)[-1].event_id
    deliver(database)
    assert receiver.events() == [others], "another job's do not wait for it"
    deliver(database)
    assert receiver.all() == [], "not before its time"
    let_time_pass(database)
    deliver(database)
    assert receiver.events() == [first, *rest]
    assert waiting(database) == []


def test_tries_grow_rarer_and_are_the_same_but_for_their_time(database: Database, receiver: Receiver) -> None:
    job = hooked(database, receiver.url)
    jobs = JobRepository(database)
    jobs.pause(job)
    jobs.resume(job)
    sent = []
    for tries, seconds in enumerate(RETRY_SECONDS, 1):
        receiver.answers.append(503)
        deliver(database)
        sent += receiver.all()
        delivery = waiting(database)[0]
        with database.read() as session:
            later = delivery.due_at - now(session)
        assert (delivery.tries, len(waiting(database))) == (tries, 2)
        assert timedelta(seconds=seconds - 30) < later <= timedelta(seconds=seconds)
        let_time_pass(database)
    assert len({(headers["webhook-id"], body) for _, headers, body in sent}) == 1
    receiver.answers.append(503)
    deliver(database)
    assert waiting(database) == [], "given up, with what waited behind it"
    last = jobs.events(job, 100, None)[0][-1]
    assert last.type == "webhook"
    assert last.data["message"] == "The webhook was given up after 8 tries: it was answered 503, and 2xx is what counts."
    jobs.pause(job)
    receiver.all()
    deliver(database)
    assert len(receiver.all()) == 1, "what happens later is told again"


def test_a_delivery_whose_maker_was_killed_is_made_again_with_the_same_id(database: Database, receiver: Receiver) -> None:
    job = hooked(database, receiver.url)
    JobRepository(database).pause(job)
    outbox = Outbox(database)
    assert list(outbox.due(9)) == [job]
    taken = outbox.take(job)
    assert taken is not None
    assert (outbox.take(job), list(outbox.due(9))) == (None, []), "one process makes it, for the time of its lease"
    lease = waiting(database)[0].due_at - datetime.now(UTC)
    assert timedelta(seconds=making._ANSWER_SECONDS) < lease <= timedelta(seconds=LEASE_SECONDS)
    let_time_pass(database)
    deliver(database)
    ((_, headers, body),) = receiver.all()
    assert (headers["webhook-id"], body) == (taken.id, taken.body)
    outbox.failed(taken, "It comes back and knows nothing of it.")
    assert waiting(database) == []
    assert [event.type for event in JobRepository(database).events(job, 9, None)[0]] == ["state"]


def test_several_services_make_each_delivery_once(database: Database, receiver: Receiver) -> None:
    jobs = [hooked(database, receiver.url) for _ in range(4)]
    for job in jobs:
        for _ in range(2):
            JobRepository(database).pause(job)
            JobRepository(database).resume(job)
    wanted = sorted(delivery.event_id for delivery in waiting(database))

    async def together() -> None:
        services = [Deliveries(database, HERE) for _ in range(3)]
        await asyncio.gather(*(service.start_due() for service in services))
        await asyncio.gather(*(service.finish() for service in services))

    asyncio.run(together())
    received = receiver.all()
    by_job: dict[str, list[int]] = {}
    for _, _, body in received:
        data = json.loads(body)["data"]
        by_job.setdefault(data["job"], []).append(data["event"])
    assert sorted(event for events in by_job.values() for event in events) == wanted
    assert all(events == sorted(events) for events in by_job.values())


@SQLITE
def test_a_job_is_deleted_with_what_it_was_to_tell(database: Database, receiver: Receiver) -> None:
    job = hooked(database, receiver.url)
    jobs = JobRepository(database)
    jobs.cancel(job)
    assert len(waiting(database)) == 1
    jobs.delete(job)
    deliver(database)
    assert (waiting(database), receiver.all()) == ([], [])


@SQLITE
def test_redirects_are_failures(database: Database, receiver: Receiver) -> None:
    job = hooked(database, receiver.url)
    JobRepository(database).pause(job)
    receiver.answers.append(307)
    receiver.location = f"http://127.0.0.1:{receiver.port}/inside"
    deliver(database)
    assert [path for path, _, _ in receiver.all()] == ["/hook"]
    assert waiting(database)[0].tries == 1


@SQLITE
def test_an_answer_without_an_end_is_not_read(database: Database, receiver: Receiver) -> None:
    receiver.endless = True
    receiver.answers.append(200)
    JobRepository(database).pause(hooked(database, receiver.url))
    deliver(database)
    assert waiting(database) == []


@SQLITE
def test_who_does_not_answer_is_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_ANSWER_SECONDS", 0.05)
    with receiving() as quiet:
        quiet.ready.clear()
        JobRepository(database).pause(hooked(database, quiet.url))
        deliver(database)
        quiet.ready.set()
    assert [delivery.tries for delivery in waiting(database)] == [1]


PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"]
INSIDE = [
    *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),  # noqa: S104
    *("255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fc00::1", "fe80::1"),
    *("fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "64:ff9b::7f00:1", "64:ff9b:1::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "::127.0.0.1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fc"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_permitted(address, ())


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_of_the_inside_may_not(address: str) -> None:
    assert not is_permitted(address, ())


def test_the_operator_allows_networks() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    for address, may in {"10.1.2.3": True, "10.2.2.3": False, "fd00::7": True, "::ffff:10.1.0.1": True, "::1": False}.items():
        assert is_permitted(address, allowed) is may, address


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "::1", "0"])
def test_no_way_of_writing_it_leads_to_this_machine(host: str) -> None:
    with pytest.raises(AddressRefused, match="has no public address"):
        asyncio.run(permitted(host, 80, ()))


def answering(*turns: Sequence[str]) -> Any:
    """A name server that says something else each time; the last one stays."""
    left = deque(turns)

    async def resolver(host: str, port: int) -> Sequence[str]:
        return left.popleft() if len(left) > 1 else left[0]

    return resolver


def test_one_address_of_the_inside_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(AddressRefused):
        asyncio.run(permitted("mixed.example", 80, (), answering(["8.8.8.8", "10.0.0.1"])))


@SQLITE
def test_a_name_is_asked_once_and_called_at_what_was_said(database: Database, receiver: Receiver) -> None:
    """What it means a moment later, when a second look would lead inside, changes nothing."""
    JobRepository(database).pause(hooked(database, f"http://hooks.example:{receiver.port}/hook"))
    deliver(database, resolver=answering(["127.0.0.1"], ["10.0.0.1"]))
    ((_, headers, _),) = receiver.all()
    assert headers["host"] == f"hooks.example:{receiver.port}"


@SQLITE
def test_a_name_that_has_moved_inside_is_not_called(database: Database, receiver: Receiver) -> None:
    JobRepository(database).pause(hooked(database, f"http://hooks.example:{receiver.port}/hook"))
    deliver(database, allowed=(), resolver=answering(["127.0.0.1"]))
    assert (receiver.all(), waiting(database)[0].tries) == ([], 1)
    let_time_pass(database)
    deliver(database, resolver=answering(["127.0.0.2", "127.0.0.1"]))
    assert len(receiver.all()) == 1, "of several addresses each is tried"


def a_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@SQLITE
def test_a_certificate_is_to_be_that_of_the_name(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, private = a_certificate(tmp_path, "hooks.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, private)
    with receiving(server) as receiver:
        for name in ("hooks.example", "other.example"):
            JobRepository(database).pause(hooked(database, f"https://{name}:{receiver.port}/"))
        deliver(database, resolver=answering(["127.0.0.1"]))
        assert (receiver.all(), len(waiting(database))) == ([], 2), "signed by nobody who is known"
        let_time_pass(database)
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(making.httpx2, "create_ssl_context", lambda **_: trusting)
        deliver(database, resolver=answering(["127.0.0.1"]))
        ((_, headers, _),) = receiver.all()
        assert headers["host"] == f"hooks.example:{receiver.port}"
        assert len(waiting(database)) == 1


REFUSED = {
    "webhook.url": [
        *("http://127.0.0.1/", "http://localhost:9/", "http://10.0.0.1/x", "ftp://example.org/", "example.org", "http://"),
        *("http://alice:secret@8.8.8.8/", "http://8.8.8.8/#part", "http://8.8.8.8:0/", "http://8.8.8.8:99999/", "http://[::1"),
        *("http://" + "a" * 70 + ".example/", "http://a..b/", "http://8.8.8.8/" + "x" * 2000, 7, None),
    ],
    "webhook.secret": ["hunter2hunter2hunter2", "whsec_aHVudGVyMg==", "whsec_hunter2!", "whsec_" + "aGkh" * 40, "whsec_é", 7],
    "webhook.events": [[], ["everything"], "state"],
}


@SQLITE
@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in REFUSED.items() for value in values])
def test_what_cannot_be_delivered_is_refused_before_anything_is_done(
    api: TestClient, job_json: dict[str, Any], field: str, value: Any
) -> None:
    webhook = {"url": "https://8.8.8.8/", "secret": SECRET, field.partition(".")[2]: value}
    for query in ("", "?dry_run=true"):
        refused = api.post(f"/jobs{query}", json={**job_json, "webhook": webhook})
        assert refused.status_code == 422, refused.text
        assert refused.json()["field"].startswith(field)
        assert SECRET not in refused.text
        if field == "webhook.secret":
            assert str(value) not in refused.json()["detail"]
    assert api.get("/jobs").json()["items"] == []


@SQLITE
def test_a_misspelt_secret_is_not_repeated(api: TestClient, job_json: dict[str, Any]) -> None:
    for webhook in ({"url": "https://8.8.8.8/", "secrte": SECRET}, SECRET):
        refused = api.post("/jobs", json={**job_json, "webhook": webhook})
        assert (refused.status_code, SECRET in refused.text) == (422, False)


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://", "http://8.8.8.8:", "http://[", "http://a."]))
def test_every_text_is_an_address_or_refused(text: str, beginning: str) -> None:
    with suppress(ValueError):
        assert usable(beginning + text) == beginning + text


@SQLITE
def test_a_secret_is_shown_nowhere(api: TestClient, job_json: dict[str, Any]) -> None:
    webhook = {"url": "https://8.8.8.8/hook", "secret": SECRET, "events": ["state", "trial"]}
    made = api.post("/jobs", json={**job_json, "webhook": webhook})
    assert made.status_code == 202, made.text
    assert made.json()["webhook"] == {"url": "https://8.8.8.8/hook", "signed": True, "events": ["state", "trial"]}
    job = made.json()["id"]
    api.post(f"/jobs/{job}/cancel")
    document = api.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        if "get" in methods and "{" not in path.replace("{job_id}", ""):
            assert SECRET.removeprefix("whsec_") not in api.get(path.format(job_id=job)).text, path
    assert api.post("/jobs", json=job_json).json()["webhook"] is None


@SQLITE
def test_an_operator_may_have_none(tmp_path: Path, database_url: str, inspect: FakeInspect, ray: FakeRay) -> None:
    ray.down = True
    settings = make_settings(tmp_path / "data", database_url=database_url, webhooks=False)
    with TestClient(create_app(settings, inspect=inspect, ray=ray), headers={"Authorization": f"Bearer {TOKEN}"}) as api:
        ids = {kind: api.post(f"/{kind}s", content=kind.encode()).json()["id"] for kind in ("model", "dataset")}
        sent = {**ids, "budget": {"ratio": 0.5}, "webhook": {"url": "https://8.8.8.8/"}}
        refused = api.post("/jobs", json=sent).json()
    assert refused["detail"].startswith("webhook is something that this server does not do")


def test_a_delivery_that_is_not_answered_when_a_service_ends_is_left_to_the_next_at_once(
    tmp_path: Path, database_url: str, inspect: FakeInspect, ray: FakeRay, receiver: Receiver
) -> None:
    ray.down = True
    receiver.ready.clear()
    settings = make_settings(tmp_path / "data", database_url=database_url, webhook_networks="127.0.0.0/8, fd00::/8")
    try:
        with TestClient(create_app(settings, inspect=inspect, ray=ray), headers={"Authorization": f"Bearer {TOKEN}"}) as api:
            job = posted(api, receiver)
            _, headers, _ = receiver.received.get(timeout=60)
    finally:
        receiver.ready.set()
    database = Database(database_url)
    try:
        outbox = Outbox(database)
        assert outbox.due(1) == [job]
        message = outbox.take(job)
        assert message is not None
        assert message.id == headers["webhook-id"]
        assert message.tries == 1
    finally:
        database.close()


@SQLITE
def test_a_running_service_delivers(
    tmp_path: Path, database_url: str, inspect: FakeInspect, ray: FakeRay, receiver: Receiver
) -> None:
    """Also what was left undelivered when the one before it ended."""
    ray.down = True
    settings = make_settings(tmp_path / "data", database_url=database_url, webhook_networks="127.0.0.0/8, fd00::/8")
    app = create_app(settings, inspect=inspect, ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as api:
        job = posted(api, receiver)
        _, _, body = receiver.received.get(timeout=60)
        assert json.loads(body)["data"]["state"] == "queued"
    database = Database(database_url)
    try:
        JobRepository(database).cancel(job)
        with TestClient(create_app(settings, inspect=inspect, ray=ray)):
            state = "queued"  # which comes again where the service before ended between its arrival and the answer
            while state == "queued":
                state = json.loads(receiver.received.get(timeout=60)[2])["data"]["state"]
        assert state == "cancelled"
        with database.read() as session:
            kept = session.get_one(Job, job).webhook
        assert kept == {"url": receiver.url, "secret": SECRET, "events": ["state"]}
    finally:
        database.close()
