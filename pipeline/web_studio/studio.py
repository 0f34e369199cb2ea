"""What a request is served with: the model's deployment, the stored clips, and the reader of uploads."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from cluster.errors import UserError
from pipeline.generation.unlike_text import describe_unlike
from pipeline.report.images import Frames
from pipeline.web_studio import codes
from pipeline.web_studio.codes import Code
from pipeline.web_studio.factors import SAMPLES, Factor, principal_factors
from pipeline.web_studio.rendering import Cell, Donor, Encoded, Reading, Rendered
from pipeline.web_studio.schema import ReadingAnswer, Sheet
from pipeline.web_studio.settings import ModelFacts, StudioSettings
from pipeline.web_studio.stored_clips import ClipShelf
from pipeline.web_studio.uploads import BusyError, UploadReader

ATTEMPTS = 3
"""Times that a request is sent to a replica, each to another one if the last died."""
PAUSE_S = 0.5
"""Time between attempts."""


class Upload(Protocol):
    """An uploaded file, as FastAPI gives it."""

    file: Any
    filename: str | None


class Studio:
    """Answers the questions of the pages.

    Args:
        model: handle of the deployment of `ModelReplica`.
        facts: of the model.
        settings: of the studio.
    """

    def __init__(self, model: Any, facts: ModelFacts, settings: StudioSettings) -> None:
        self.facts, self.settings = facts, settings
        self.shelf = ClipShelf(facts, settings.data)
        self._model = model
        self._factors: dict[str, Factor] | None = None
        self._finding = asyncio.Lock()
        self._uploads = UploadReader(facts, settings)
        self._uploads.warm_up()

    def close(self) -> None:
        """End the processes that read uploads."""
        self._uploads.close()

    async def donor(self, reference: str) -> Donor:
        """Return what a reference refers to.

        Raises:
            UserError: it refers to nothing.
        """
        kind, value = codes.split(reference)
        if kind == codes.CODE:
            return codes.read_code(value, self.facts)
        if kind == codes.SAMPLE:
            return codes.read_seed(value)
        return await asyncio.to_thread(self.shelf.frames, kind, value)

    async def uploaded(self, upload: Upload, *, still: bool) -> Frames:
        """Return the clip in an upload; see `UploadReader.read`."""
        name = upload.filename or ""
        return await asyncio.to_thread(self._uploads.read, upload.file, name, still=still)

    async def render(
        self, donors: Sequence[Donor], cells: Sequence[Cell], frames: int | None, *, read: bool = False
    ) -> Rendered:
        """Have the model generate clips; see `ModelReplica.render`.

        Raises:
            BusyError: no replica answered.
        """
        length = frames or self.facts.clip_frames
        found: Rendered = await self._ask("render", list(donors), list(cells), length, read=read)
        return found

    async def factors(self) -> dict[str, Factor]:
        """Return the factors that an identity can be moved along, by name; they are found at the first call.

        Raises:
            BusyError: no replica answered.
        """
        async with self._finding:
            if self._factors is None:
                self._factors = await self._find_factors()
        return self._factors

    async def _find_factors(self) -> dict[str, Factor]:
        examples, found = await asyncio.to_thread(self.shelf.examples), []
        if examples is not None:
            encoded: Encoded = await self._ask("static_codes", examples.clips)
            found = examples.factors(encoded)
        if not found:
            found = principal_factors(await self._ask("sampled_codes", SAMPLES), self.facts.static_groups)
        return {factor.name: factor for factor in found}

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import RayServeException

        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE_S)
            try:
                return await getattr(self._model, method).remote(*args, **options)
            except (RayActorError, RayServeException, ConnectionError) as error:
                reason = type(error).__name__
            except RayError as error:
                if isinstance(getattr(error, "cause", None), UserError):
                    raise UserError(str(getattr(error, "cause", ""))) from None
                raise
        raise BusyError(f"the model is restarting ({reason})")

    def answer(self, name: str, given: Donor, reading: Reading) -> ReadingAnswer:
        """Return a reading as JSON."""
        fps, clip = self.facts.fps, None
        if not isinstance(given, Code | int):
            clip = Sheet.of_clip(given, fps, f"the clip {name}")
        warning = None
        if reading.unlike and reading.share is not None and reading.psnr_db is not None:
            warning = describe_unlike(name, reading.share, reading.psnr_db)
        return ReadingAnswer(
            name=name, code=reading.code.to_text(), clip=clip, share=reading.share, psnr_db=reading.psnr_db,
            reconstruction=Sheet.of_clip(reading.reconstruction, fps, f"{name}, reconstructed"), warning=warning,
        )  # fmt: skip
