"""A proxy to an S3 server that makes chosen requests fail: broken connections, error responses, low bandwidth."""

import contextlib
import dataclasses
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
_PIECE = 16_384


@dataclass(frozen=True)
class Fault:
    """A failure to inject into one request."""

    status: int = 0
    """Respond with this HTTP status without forwarding the request."""
    code: str = "SlowDown"
    """The S3 error code in that response."""
    cut_request: int | None = None
    """Break the connection after this many bytes of the request's body, none of which are forwarded."""
    lose_answer: bool = False
    """Let the server complete the request, then break the connection instead of forwarding the response."""
    cut_answer: int | None = None
    """Break the connection after this many bytes of the response's body: 0 is right after the HTTP header."""
    cut_header: bool = False
    """Break the connection in the middle of the response's HTTP header."""
    forget_length: bool = False
    """Send the response without its length, as old proxies do, so that a break looks like a normal end."""
    delay_s: float = 0.0
    """Wait this long before handling the request."""
    bytes_per_s: float = 0.0
    """Limit the bandwidth of the response; 0 is unlimited."""
    midway: Callable[[], object] | None = None
    """Called after half of the request's body has been forwarded or, without a body, after a part of the response."""


@dataclass
class FaultProxy:
    """A running proxy."""

    endpoint: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request, in order."""

    def count(self, method: str) -> int:
        """Return the number of requests with a method."""
        return sum(one == method for one, _ in self.requests)


@contextlib.contextmanager
def fault_proxy(
    endpoint: str, fault: Callable[[str, str, int], Fault | None], tls: ssl.SSLContext | None = None
) -> Iterator[FaultProxy]:
    """Run a proxy to the server at `endpoint` in threads of this process.

    Args:
        endpoint: URL of the server.
        fault: called with the method, the path and the number of earlier requests with that method; returns the fault
            to inject, or None.
        tls: use TLS for the clients.
    """
    address = endpoint.removeprefix("http://")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            with lock:
                injected = fault(self.command, self.path, proxy.count(self.command)) or Fault()
                proxy.requests.append((self.command, self.path))
            time.sleep(injected.delay_s)
            length = int(self.headers.get("Content-Length") or 0)
            if injected.cut_request is not None:
                self.rfile.read(min(length, injected.cut_request))
                self.break_off()
                return
            body = self.rfile.read(length) if length else self.read_chunks()
            if injected.status:
                text = f"<?xml version='1.0'?><Error><Code>{injected.code}</Code></Error>".encode()
                self.send_response(injected.status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else text)
                return
            self.forward(body, injected)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

        def read_chunks(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
                return b""
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return found

        def forward(self, body: bytes, injected: Fault) -> None:
            server = http.client.HTTPConnection(address, timeout=60)
            try:
                # The host name is part of the client's signature, so it is forwarded unchanged.
                server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in {*_HOP_BY_HOP, "content-length"}:
                        server.putheader(name, value)
                server.putheader("Content-Length", str(len(body)))
                server.endheaders()
                if body and injected.midway is not None:
                    server.send(body[: len(body) // 2])
                    injected.midway()
                    body, injected = body[len(body) // 2 :], dataclasses.replace(injected, midway=None)
                server.send(body)
                response = server.getresponse()
                if injected.lose_answer:
                    response.read()
                    self.break_off()
                else:
                    self.forward_response(response, injected)
            except (OSError, http.client.HTTPException):
                self.break_off()
            finally:
                server.close()

        def forward_response(self, response: http.client.HTTPResponse, injected: Fault) -> None:
            """Forward the response in pieces, so that a connection broken by the server breaks here too."""
            if injected.cut_header:
                self.wfile.write(f"HTTP/1.1 {response.status} {response.reason}\r\nContent-Le".encode())
                self.break_off()
                return
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP_BY_HOP and not (
                    injected.forget_length and name.lower() == "content-length"
                ):
                    self.send_header(name, value)
            ends = injected.forget_length or ("Content-Length" not in response.headers and self.command != "HEAD")
            if ends:
                self.send_header("Connection", "close")
            self.end_headers()
            left = float("inf") if injected.cut_answer is None else injected.cut_answer
            while left > 0 and (piece := response.read(int(min(_PIECE, left)))):
                self.wfile.write(piece)
                left -= len(piece)
                if injected.midway is not None:
                    injected.midway()
                    injected = dataclasses.replace(injected, midway=None)
                if injected.bytes_per_s:
                    time.sleep(len(piece) / injected.bytes_per_s)
            if ends or left == 0 or (response.length or 0) > 0:
                self.break_off()

        def break_off(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the client has disconnected

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    proxy = FaultProxy(f"{scheme}://{'127.0.0.1' if tls is None else 'localhost'}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
