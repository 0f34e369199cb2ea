"""The gate in front of the application: who may ask, how much may arrive and in which time, and what headers leave.

It is installed twice: in Serve's proxy, which would otherwise store a request of any length before it asks whether a
replica wants it, and in the application, for proxies that were started without it. Both read their settings from one
variable, which holds no token but a hash of it.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import asdict, dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

log = logging.getLogger(__name__)

VARIABLE = "VDSM_STUDIO_GATE"
"""Environment variable with the settings, as JSON."""
TOKEN = "VDSM_STUDIO_TOKEN"
"""Environment variable with the token, for nodes of a cluster that get it from a secret."""
COOKIE = "vdsm_studio"
OURS = b"x-vdsm-studio"
"""Header of every answer of the application; an error without it is one of Serve."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HOSTS = [f"[{name}]" if ":" in name else name for name in LOOPBACK]
DRAIN_S = 5.0
"""Time for which the rest of a refused request is read and dropped, so that its sender reads the answer."""
BUSY = "the studio is busy or restarting; repeat the request"
HEALTH = "/-/healthz"
"""Path of Serve that load balancers ask."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class GateSettings:
    """Limits of the gate."""

    token_sha256: str | None = None
    """SHA-256 of the token that every request needs, as hex; None on loopback, where none is needed."""
    max_bytes: int = 64_000_000
    """Length of the longest request."""
    max_seconds: float = 30.0
    """Time in which a request must have arrived."""
    held_bytes: int = 512_000_000
    """Bytes of requests that may be held at the same time."""
    retry_after_s: int = 2
    """What a client is asked to wait before it repeats a request."""

    def to_text(self) -> str:
        """Return the value of the variable."""
        return json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> "GateSettings":
        """Return the settings in the variable, or the defaults with the token of a cluster."""
        if VARIABLE in os.environ:
            return cls(**json.loads(os.environ[VARIABLE]))
        token = os.environ.get(TOKEN)
        return cls(hash_of(token) if token else None)


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Gate:
    """ASGI middleware."""

    def __init__(self, app: App, settings: GateSettings | None = None) -> None:
        self._app, self._settings = app, settings or GateSettings.from_environment()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page opens a web socket
            await send({"type": "websocket.close", "code": 1008})
            return
        held = _Held(self)
        try:
            self._admit(scope)
            if (place := self._without_token(scope)) is not None:
                await self._welcome(place, send)
                return
            body = await self._body(scope, receive, held)
        except _RefusedError as refused:
            rest = self._settings.max_bytes if held.incomplete and refused.status not in (401, 408) else 0
            await self._answer(send, refused.status, refused.reason, _drain(receive, rest))
            return
        else:
            await self._serve(scope, body, receive, send)
        finally:
            held.release()

    def _admit(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        expected = self._settings.token_sha256
        if origin and scope["method"] not in ("GET", "HEAD") and origin.partition("://")[2] != host:
            raise _RefusedError(403, "this request comes from another page; open the studio's own")
        if expected is None:
            # Another page could let its own name point to loopback.
            if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
                raise _RefusedError(403, "the studio answers on loopback only; open it as localhost")
        elif scope["path"] != HEALTH and not any(_matches(token, expected) for token in _tokens(scope, headers)):
            raise _RefusedError(401, "this studio needs its token; open the address that `vdsm studio` printed")

    def _without_token(self, scope: Scope) -> tuple[str, str] | None:
        """Return path and token of a page that was opened with its token in the address, which a cookie replaces."""
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] != "GET" or scope["path"] != "/" or "token" not in query:
            return None
        token = query.pop("token")[0]
        rest = urlencode(query, doseq=True)
        return f"/{'?' if rest else ''}{rest}", token if self._settings.token_sha256 else ""

    async def _welcome(self, place: tuple[str, str], send: Send) -> None:
        url, token = place
        cookie = SimpleCookie({COOKIE: token})
        cookie[COOKIE]["path"], cookie[COOKIE]["samesite"], cookie[COOKIE]["httponly"] = "/", "Strict", True
        headers = [(b"location", url.encode()), (b"content-length", b"0"), (OURS, b"1"), *HEADERS.items()]
        headers.append((b"set-cookie", cookie[COOKIE].OutputString().encode()))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _body(self, scope: Scope, receive: Receive, held: "_Held") -> bytes:
        """Return the body, once it has arrived."""
        settings, headers = self._settings, dict(scope["headers"])
        most = f"{settings.max_bytes / 10**6:g} MB"
        too_long = _RefusedError(413, f"the request is longer than {most}; send a shorter clip")
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > settings.max_bytes:
            raise too_long
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(settings.max_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _RefusedError(400, "the request was cut short")
                    held.incomplete = bool(message.get("more_body", False))
                    parts.append(message.get("body", b""))
                    held.take(len(parts[-1]))
                    if held.count > settings.max_bytes:
                        raise too_long
                    if not held.incomplete:
                        return b"".join(parts)
        except TimeoutError:
            raise _RefusedError(408, f"the request did not arrive within {settings.max_seconds:g} s") from None

    async def _serve(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if not replayed:
                replayed = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        # Passed on when it is complete: a replica may die between the head of an answer and its end.
        answer: list[Message] = []
        failed = complete = False

        async def keep(message: Message) -> None:
            nonlocal failed, complete
            if message["type"] == "http.response.start":
                status, given = int(message["status"]), message.get("headers", [])
                headers = [(bytes(name), bytes(value)) for name, value in given]
                names = {name.lower() for name, _ in headers}
                failed = (status >= 500 or status == 408) and OURS not in names
                headers += [(name, value) for name, value in HEADERS.items() if name not in names]
                message = {**message, "status": status, "headers": headers}
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            answer.append(message)

        try:
            await self._app(scope, replay, keep)
        except Exception:
            log.exception("a request failed")
        if failed or not complete:  # Serve answers nothing if a replica dies
            await self._answer(send, 503, BUSY)
            return
        for message in answer:
            await send(message)

    async def _answer(self, send: Send, status: int, reason: str, before_end: Awaitable[None] | None = None) -> None:
        body = json.dumps({"error": reason}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (OURS, b"1")]
        headers += HEADERS.items()
        if status == 503:
            headers.append((b"retry-after", str(self._settings.retry_after_s).encode()))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status in (408, 413, 503):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if before_end is not None:
            await before_end
        await send({"type": "http.response.body", "body": b""})

    def hold(self, count: int) -> None:
        """Count bytes that are held; a negative number releases them."""
        if count > 0 and self._held + count > self._settings.held_bytes:
            raise _RefusedError(503, "too many uploads at the same time; repeat the request")
        self._held += count


class _Held:
    """The bytes that one request holds."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self.count = gate, 0
        self.incomplete = True
        """Whether more of the request may arrive."""

    def take(self, count: int) -> None:
        self._gate.hold(count)
        self.count += count

    def release(self) -> None:
        self._gate.hold(-self.count)
        self.count = 0


async def _drain(receive: Receive, most: int) -> None:
    """Read the rest of a refused request, but not for long: its sender may wait until it has sent everything."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


def _tokens(scope: Scope, headers: dict[bytes, bytes]) -> Iterable[str]:
    """Yield the tokens that a request brings."""
    kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer":
        yield value.strip()
    with contextlib.suppress(CookieError):
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        if found is not None:
            yield found.value
    yield from parse_qs(scope["query_string"].decode("latin-1")).get("token", []) if scope["path"] == "/" else []


def _matches(token: str, sha256: str) -> bool:
    return hmac.compare_digest(hash_of(token), sha256)


def hash_of(token: str) -> str:
    """Return the SHA-256 of a token, as hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def middlewares() -> list[Any]:
    """Return the middlewares of Serve's proxy, which imports this function by its name."""
    from starlette.middleware import Middleware

    return [Middleware(Gate)]
