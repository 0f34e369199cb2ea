"""The API of a running `vdsm studio`: what it accepts, and one clear line for everything else."""

import http.client
import io
import json
import socket
import subprocess
import tempfile
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.training_runs import descendants
from tests.listeners import listeners
from tests.pipeline.web_studio.conftest import RunningStudio

pytestmark = [pytest.mark.slow, pytest.mark.ray]

CALLS = (
    "model", "transfer", "read", "grid", "explore", "factors", "clips", "pairs", "rejects", "runs",
    "runs/curves", "runs/compare",
)  # fmt: skip
SAMPLES = {"who": "sample:1", "how": "sample:2"}


def multipart(**fields: str | tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form; a field is a text, or name and content of a file."""
    boundary, parts = uuid.uuid4().hex, []
    for name, value in fields.items():
        file, content = value if isinstance(value, tuple) else (None, value.encode())
        shown = f'; filename="{file}"' if file is not None else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), {
        "content-type": f"multipart/form-data; boundary={boundary}"
    }


def transfer(studio: RunningStudio, **fields: str | tuple[str, bytes]) -> tuple[int, Any]:
    body, headers = multipart(**fields)
    return studio.ask("api/transfer", body, **headers)


def npy(frames: int = 8, size: int = 64) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full((frames, size, size, 3), 90, dtype=np.uint8))
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_codes_of_an_upload_stand_for_it_in_later_requests(studio: RunningStudio) -> None:
    status, first = transfer(studio, who_file=("a.npy", npy()), how="test:figure0227-walk")
    assert status == 200
    assert first["identity"]["clip"]["frames"] == 8
    status, second = transfer(studio, who=first["identity"]["code"], how=first["action"]["code"])
    assert (status, second["identity"]["clip"]) == (200, None)
    assert second["result"]["uri"] == first["result"]["uri"]
    longer = {"static": [{"of": first["identity"]["code"]}], "dynamics": [{"of": "sample:5"}], "frames": 40}
    status, answer = studio.ask("api/explore", longer)
    assert (status, answer["result"]["frames"]) == (200, 40)


def test_a_picture_gives_an_identity_but_no_action(studio: RunningStudio) -> None:
    assert transfer(studio, who_file=("a.png", png(90, 70)), how="sample:1")[0] == 200
    status, answer = transfer(studio, how_file=("a.png", png(90, 70)), who="sample:1")
    assert (status, answer["error"]) == (422, "a.png: is a still picture, which shows no action; give a video")


@pytest.mark.parametrize("kind", ["mp4", pytest.param("gif", marks=pytest.mark.long)])
def test_results_are_downloaded_as_media(studio: RunningStudio, kind: str) -> None:
    request = {"identities": ["sample:1", "sample:2"], "actions": ["sample:3"], "format": kind}
    body = json.dumps(request).encode()
    call = urllib.request.Request(f"{studio.url}api/grid", body, {"content-type": "application/json"})
    with urllib.request.urlopen(call) as response:
        data = response.read()
        assert response.headers["content-disposition"] == f'attachment; filename="grid.{kind}"'
    assert data[4:8] == b"ftyp" if kind == "mp4" else data[:6] == b"GIF89a"


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
PICKLE = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 60
NINE = ["sample:1"] * 9
ONE = [{"of": "sample:1"}]
STEP = {"factor": "hat", "towards": "sombrero", "amount": 1}
CONCAT = b"ffconcat version 1.0\nfile '/etc/passwd'\n"


FILES = {
    "list.m3u8": (PLAYLIST, "not a video that can be opened"),
    "list.ffconcat": (CONCAT, "not a video that can be opened"),
    "page.html": (b"<script>alert(1)</script>", "not a video that can be opened"),
    "empty.mp4": (b"", "not a video that can be opened"),
    "short.npy": (npy(frames=3), "has 3 frames, but 8 are needed; give a longer clip"),
    "small.npy": (npy(size=32), "has frames of 32x32x3, but the model expects 64x64x3"),
    "pickle.npy": (PICKLE, "array"),
    "large.png": (png(2000, 1000), "it is too large (2000x1000, at most 1000000 pixels a frame)"),
    "bomb.npz": (b"PK\x03\x04" + b"\0" * 500, "not a readable array"),
    "../../x.mp4": (b"\0" * 100, "not a video that can be opened"),
}  # fmt: skip
"""Name of a file -> its content, and a part of the answer."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_clip_is_refused_in_one_line(studio: RunningStudio, name: str) -> None:
    content, reason = FILES[name]
    status, answer = transfer(studio, who_file=(name, content), how="sample:1")
    assert status == 422
    assert answer["error"].startswith(f"{name.rpartition('/')[2]}: ")
    assert reason in answer["error"]
    assert "\n" not in answer["error"]
    assert "/tmp" not in answer["error"]
    assert transfer(studio, **SAMPLES)[0] == 200


def test_real_videos_that_are_damaged_or_too_long_are_read_or_refused(studio: RunningStudio, shared_data: Path) -> None:
    videos = shared_data / "videos"
    damaged = (videos / "torchcodec" / "nasa_13013.mp4").read_bytes()[:20_000]
    found = transfer(studio, how_file=("nasa.mp4", damaged), who="sample:1")
    assert (found[0], found[1]["error"].startswith("nasa.mp4: ")) == (422, True)
    long = (videos / "opencv" / "box.mp4").read_bytes()
    status, answer = transfer(studio, how_file=("box.mp4", long), who="sample:1")
    assert (status, answer["error"]) == (422, "box.mp4: it is too long (15 s, at most 10)")


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("api/explore", {"static": []}, "static: List should have at least 1 item"),
        ("api/explore", {"static": [{"of": "sample:1", "weight": 0}], "dynamics": ONE}, "all weights"),
        ("api/explore", {"static": [{"of": "sample:-1"}], "dynamics": ONE}, "sample:-1: the seed must be"),
        ("api/explore", {"static": [{"of": "x"}], "dynamics": ONE}, "x: is no reference to a clip"),
        ("api/explore", {"static": [{"of": "code:AAAA"}], "dynamics": ONE}, "the codes in this link are"),
        ("api/explore", {"static": [{"of": "code:é"}], "dynamics": ONE}, "the codes in this link are"),
        ("api/explore", {"static": ONE, "dynamics": ONE, "frames": 10**6}, "frames: Input should"),
        ("api/grid", {"identities": NINE, "actions": NINE}, "the grid has 81 clips; at most 64"),
        ("api/grid", {"identities": ["nowhere:1"], "actions": ["sample:1"]}, "there are no clips named nowhere:"),
        ("api/explore", b"[" * 100_000, ""),
        ("api/explore", {"static": ONE, "dynamics": ONE, "walk": STEP | {"factor": "x"}}, "there is no factor x"),
        ("api/explore", {"static": ONE, "dynamics": ONE, "walk": STEP}, "hat has no value sombrero"),
        ("api/clips?kind=test&label=hat:sombrero", None, "hat:sombrero: there is no such label"),
        ("api/clips?kind=test&limit=5000", None, "query.limit: Input should be"),
        ("api/runs/curves?name=..", None, "..: there is no run of this name"),
        ("api/runs/curves?name=a%2Fb", None, "a/b: there is no run of this name"),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused_in_one_line(studio: RunningStudio, path: str, content: Any, reason: str) -> None:
    status, answer = studio.ask(path, content)
    assert status == (422 if reason else 400)
    assert answer["error"].startswith(reason)
    assert "\n" not in answer["error"]


def test_a_file_of_4_gb_is_refused_at_once_and_nothing_grows(studio: RunningStudio, tmp_path: Path) -> None:
    file = tmp_path / "sparse.mp4"
    with file.open("wb") as sparse:
        sparse.truncate(4_000_000_000)
    before = {pid: memory(pid) for pid in descendants(studio.pid)}
    for chunked in (False, True):
        headers = ["-H", "Transfer-Encoding: chunked"] if chunked else []
        args = ["curl", "-s", "-w", " %{http_code}", "-F", f"who_file=@{file}", "-F", "how=sample:1", *headers]
        done = subprocess.run([*args, f"{studio.url}api/transfer"], capture_output=True, text=True, check=False)
        assert done.stdout == '{"error": "the request is longer than 2 MB; send a shorter clip"} 413'
    assert transfer(studio, **SAMPLES)[0] == 200
    assert all(memory(pid) < bytes_before + 100_000_000 for pid, bytes_before in before.items())


def test_a_slow_client_is_cut_off_while_others_are_served(studio: RunningStudio) -> None:
    host, _, port = studio.url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        slow.sendall(f"POST /api/transfer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n\r\nx".encode())
        assert transfer(studio, **SAMPLES)[0] == 200
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert (answer.status, answer.read()) == (408, b'{"error": "the request did not arrive within 2 s"}')


def test_it_listens_on_loopback_only_and_keeps_nothing_of_uploads(studio: RunningStudio) -> None:
    transfer(studio, who_file=("a.npy", npy()), how="sample:1")
    pids = [studio.pid, *descendants(studio.pid)]
    assert {one.address for one in listeners(pids)} == {"127.0.0.1"}
    assert not list(Path(tempfile.gettempdir()).glob("vdsm-upload-*"))


def test_openapi_describes_every_call(studio: RunningStudio) -> None:
    status, found = studio.ask("api/openapi.json")
    assert status == 200
    assert set(found["paths"]) == {
        f"/api/{name}"
        for name in CALLS
    }  # fmt: skip
    assert studio.ask("docs")[0] == 404


def memory(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    try:
        return int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * 4096
    except OSError:
        return 0
