"""The web page: files of `serve_app/web`, revalidated on every load, so that an update shows at once."""

import mimetypes
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

WEB = Path(__file__).resolve().parent.parent / "web"
REVALIDATE = {"cache-control": "no-cache"}

# Some systems' tables name these otherwise, and browsers do not run a script of a wrong type under nosniff.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("image/svg+xml", ".svg")
mimetypes.add_type("application/manifest+json", ".webmanifest")


class RevalidatedFiles(StaticFiles):
    """Files with an ETag that must be checked before a cached copy is used. Nothing outside the folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        return response


def install(app: FastAPI, folder: Path = WEB) -> None:
    """Serve `index.html` at / and everything below /static."""

    async def index(request: Request) -> Response:
        page = folder / "index.html"
        if not page.is_file():
            raise HTTPException(404)
        response = FileResponse(page, media_type="text/html", headers=REVALIDATE, stat_result=page.stat())
        if RevalidatedFiles(directory=folder, check_dir=False).is_not_modified(
            response.headers, Headers(scope=request.scope)
        ):
            return NotModifiedResponse(response.headers)
        return response

    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
    app.mount("/static", RevalidatedFiles(directory=folder, check_dir=False), name="static")
