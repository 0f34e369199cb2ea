"""The studio's application in this process: the same page, API and model, without Ray Serve between them."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.report.images import Frames
from pipeline.web_studio.gate import GateSettings
from pipeline.web_studio.model_facts import facts_of
from pipeline.web_studio.model_replica import ModelReplica
from pipeline.web_studio.rendering import Reading
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.studio import Studio
from pipeline.web_studio.studio_model import Decoded, StudioModel
from pipeline.web_studio.web import make_app
from tests.pipeline.web_studio.conftest import RunningStudio


class _Replica(ModelReplica):
    """Computes each clip by itself: batches are made by Serve."""

    def __init__(self, settings: StudioSettings) -> None:
        self._model, self._busy = StudioModel(settings), asyncio.Lock()

    async def _encode(self, clip: Frames) -> Reading:  # type: ignore[override]
        async with self._busy:
            return (await asyncio.to_thread(self._model.encode, [clip]))[0]

    async def _decode(self, work: Decoded) -> Frames:  # type: ignore[override]
        async with self._busy:
            return (await asyncio.to_thread(self._model.decode, [work]))[0]


class _Handle:
    """Calls a replica as the handle of a deployment does."""

    def __init__(self, replica: _Replica) -> None:
        self._replica = replica

    def __getattr__(self, name: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self._replica, name))})


@contextlib.contextmanager
def in_process(settings: StudioSettings) -> Iterator[RunningStudio]:
    """Serve the application for the block."""
    import uvicorn

    replica = _Replica(settings)
    studio = Studio(_Handle(replica), facts_of(replica._model.trained, settings), settings)
    server = uvicorn.Server(uvicorn.Config(make_app(studio, GateSettings()), port=0, log_level="warning"))
    ready, startup = threading.Event(), server.startup

    async def announced(*args: Any, **options: Any) -> None:
        await startup(*args, **options)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    run: Callable[[], None] = server.run
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield RunningStudio(f"http://127.0.0.1:{port}/", os.getpid())
    finally:
        server.should_exit = True
        thread.join()
        studio.close()
