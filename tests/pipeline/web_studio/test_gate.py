"""The gate of `vdsm studio`: who is let in, what is too much, and what Serve's own errors become. Without Ray."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.web_studio.gate import COOKIE, HEADERS, OURS, TOKEN, VARIABLE, Gate, GateSettings, hash_of

SECRET = "a-token-of-enough-letters"
OPEN = GateSettings(max_bytes=100, max_seconds=0.2, held_bytes=150)
CLOSED = GateSettings(token_sha256=hash_of(SECRET), max_bytes=100)


class Answer:
    """What a client received."""

    def __init__(self, messages: Sequence[dict[str, Any]]) -> None:
        start = messages[0]
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body, as an application."""
    message = await receive()
    assert not message.get("more_body")
    await send({"type": "http.response.start", "status": 200, "headers": [(OURS, b"1")]})
    await send({"type": "http.response.body", "body": str(len(message["body"])).encode()})


async def ask(
    gate: Gate,
    *parts: bytes,
    method: str = "POST",
    path: str = "/api/transfer",
    query: str = "",
    stalls: bool = False,
    **headers: str,
) -> Answer:
    """Send a request in parts; with `stalls`, its end never comes."""
    sent: list[dict[str, Any]] = []

    waiting = list(parts or (b"",))

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": stalls or bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:8450", **headers}
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    await gate(scope, receive, send)
    return Answer(sent)


def asked(gate: Gate, *parts: bytes, **options: Any) -> Answer:
    return asyncio.run(ask(gate, *parts, **options))


def test_a_request_arrives_complete_and_the_answer_has_headers_that_shut_the_page_in() -> None:
    answer = asked(Gate(echo, OPEN), b"a" * 60, b"b" * 40)
    assert (answer.status, answer.body) == (200, b"100")
    assert {name.encode(): value.encode() for name, value in answer.headers.items()}.items() >= HEADERS.items()
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_long_request_is_refused_before_it_arrives_and_when_it_hides_its_length() -> None:
    for parts, headers in (((b"",), {"content_length": "4000000000"}), ((b"x" * 60, b"x" * 60), {})):
        answer = asked(Gate(echo, OPEN), *parts, **headers)
        assert answer.status == 413
        assert answer.error.startswith("the request is longer than 0.0001 MB")
        assert answer.headers["connection"] == "close"


def test_a_client_that_stalls_is_told_so_in_time() -> None:
    answer = asked(Gate(echo, OPEN), b"x", stalls=True)
    assert (answer.status, answer.error) == (408, "the request did not arrive within 0.2 s")


def test_requests_are_held_up_to_a_limit_and_released_however_they_end() -> None:
    gate = Gate(echo, OPEN)

    async def several() -> list[Answer]:
        return await asyncio.gather(*(ask(gate, b"x" * 90, stalls=stalls) for stalls in (True, False)))

    stalled, refused = asyncio.run(several())
    assert stalled.status == 408
    assert (refused.status, refused.headers["retry-after"]) == (503, "2")
    for _ in range(5):
        assert asked(gate, b"x" * 100).status == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "localhost:8450"}, True),
        ({"host": "[::1]:8450"}, True),
        ({"host": "localhost"}, True),
        ({"host": "evil.example:8450"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": "localhost:8450", "origin": "http://localhost:8450"}, True),
        ({"host": "localhost:8450", "origin": "http://evil.example"}, False),
        ({"host": "localhost:8450", "origin": "null"}, False),
    ],
)
def test_on_loopback_no_other_page_can_ask(headers: dict[str, str], allowed: bool) -> None:
    assert asked(Gate(echo, OPEN), b"x", **headers).status == (200 if allowed else 403)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {SECRET}"}, 200),
        ({"authorization": f"bearer  {SECRET}"}, 200),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Basic {SECRET}"}, 401),
        ({"cookie": f"{COOKIE}={SECRET}"}, 200),
        ({"cookie": f"other={SECRET}"}, 401),
        ({"cookie": f"{COOKIE}=wrong"}, 401),
        ({"query": f"token={SECRET}"}, 401),
        ({"query": "token=wrong", "path": "/", "method": "GET"}, 401),
        ({"path": "/-/healthz", "method": "GET"}, 200),
        ({"path": "/-/routes", "method": "GET"}, 401),
    ],
)
def test_elsewhere_nothing_is_answered_without_the_token(options: dict[str, str], status: int) -> None:
    answer = asked(Gate(echo, CLOSED), b"x", **{"host": "studio.example", **options})
    assert answer.status == status
    assert SECRET not in str(answer.headers)


def test_the_address_with_the_token_becomes_a_cookie_that_scripts_cannot_read() -> None:
    answer = asked(Gate(echo, CLOSED), method="GET", path="/", query=f"token={SECRET}&x=1", host="studio.example")
    assert (answer.status, answer.headers["location"]) == (303, "/?x=1")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={SECRET}")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_errors_of_serve_become_one_line_that_asks_to_repeat(status: int) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Traceback ...", "more_body": True})
        await send({"type": "http.response.body", "body": b"The actor died"})

    answer = asked(Gate(broken, OPEN), b"x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert answer.error == "the studio is busy or restarting; repeat the request"


def test_a_request_that_serve_leaves_without_an_answer_is_asked_again() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    answer = asked(Gate(silent, OPEN), b"x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("sent", [0, 1], ids=["after the head", "within the body"])
@pytest.mark.parametrize("error", [None, RuntimeError("the replica is gone")])
def test_an_answer_that_ends_too_early_is_asked_again(sent: int, error: Exception | None) -> None:
    async def cut(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"20")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(sent):
            await send({"type": "http.response.body", "body": b"0123456789", "more_body": True})
        if error is not None:
            raise error

    answer = asked(Gate(cut, OPEN), b"x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert answer.error == "the studio is busy or restarting; repeat the request"


def test_an_application_that_fails_before_it_answers_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the actor died")

    answer = asked(Gate(failing, OPEN), b"x")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert "the actor died" in caplog.text


def test_an_error_of_the_application_stays_as_it_is() -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": [(OURS, b"1"), (b"retry-after", b"9")]})
        await send({"type": "http.response.body", "body": b"{}"})

    assert asked(Gate(refusing, OPEN), b"x").headers["retry-after"] == "9"


def test_the_variable_holds_a_hash_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    text = CLOSED.to_text()
    assert SECRET not in text
    monkeypatch.setenv(VARIABLE, text)
    assert GateSettings.from_environment() == CLOSED
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(TOKEN, SECRET)
    assert GateSettings.from_environment().token_sha256 == hash_of(SECRET)
    monkeypatch.delenv(TOKEN)
    assert GateSettings.from_environment().token_sha256 is None
