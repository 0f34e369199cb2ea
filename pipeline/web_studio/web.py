"""The FastAPI application: the API, the page's files, and one clear line for everything that is refused."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from cluster.errors import UserError, one_line
from pipeline.web_studio import api_clips, api_data, api_model, api_runs
from pipeline.web_studio.gate import OURS, Gate, GateSettings
from pipeline.web_studio.page_files import TYPES, page_files
from pipeline.web_studio.settings import MAX_RETRY_AFTER_S
from pipeline.web_studio.studio import Studio
from pipeline.web_studio.uploads import BusyError

MARK = {OURS.decode(): "1"}


def make_app(studio: Studio, gate: GateSettings) -> Any:
    """Return the ASGI application."""
    from vdsm import __version__

    # Its pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="VDSM studio", version=__version__, openapi_url="/api/openapi.json", docs_url=None, redoc_url=None
    )
    app.state.studio = studio
    for part in (api_model, api_clips, api_data, api_runs):
        app.include_router(part.router)
    files = page_files()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _file(files, "index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return _file(files, name)

    @app.exception_handler(UserError)
    async def refused(_: Request, error: UserError) -> JSONResponse:
        return _refusal(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _refusal(422, one_line(f"{where or 'the request'}: {first['msg']}")[:500])

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return _refusal(error.status_code, one_line(str(error.detail))[:500])

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return _refusal(503, f"{error}; repeat the request", {"retry-after": str(MAX_RETRY_AFTER_S)})

    return Gate(app, gate)


def _file(files: dict[str, bytes], name: str) -> Response:
    if name not in files:
        return _refusal(404, f"there is no page {name:.80}")
    return Response(files[name], headers={"content-type": TYPES["." + name.rpartition(".")[2]], **MARK})


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status, headers={**MARK, **(headers or {})})
