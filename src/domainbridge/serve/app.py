"""The service: a page, the model's classes, its health, and ``POST /predict``."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from domainbridge.errors import DomainbridgeError
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.serve.answers import OUTPUTS, answer, scale_remark
from domainbridge.serve.images import decode, image_bytes
from domainbridge.serve.queue import ModelQueue
from domainbridge.serve.refusal import RefusalError

__all__ = ["Limits", "service"]

_POLICY = (
    "default-src 'none'; img-src blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body_bytes: largest body.
        pixels: largest image.
        seconds: for the body to arrive, and again for the answer, its wait included.
        places: requests that may be here at once.
    """

    body_bytes: int
    pixels: int
    seconds: float
    places: int


@dataclass
class _Counts:
    """Answers since the start."""

    segmented: int = 0
    refused: int = 0
    other_scale: int = 0

    def look_at(self, remark: str | None) -> None:
        """Count images of another scale than in training; the first one is told in the log."""
        if remark is not None and not self.other_scale:
            logging.getLogger(__name__).warning(
                "note: an image has %s. Further ones are counted: other_scale in /health", remark
            )
        self.other_scale += remark is not None


def service(predictor: SegmentationModel, name: str, limits: Limits) -> FastAPI:
    """The application.

    Args:
        predictor: a loaded model; one request at a time uses it.
        name: of the model, as people read it.
        limits: see there.
    """
    queue, counts, start = ModelQueue(limits.places), _Counts(), time.monotonic()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    app = FastAPI(title=f"domainbridge: {name}", lifespan=lifespan, docs_url=None, redoc_url=None)
    _answer_errors(app, counts)
    page = files("domainbridge.serve").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "waiting": queue.taken,
            "segmented": counts.segmented,
            "refused": counts.refused,
            "other_scale": counts.other_scale,
            "seconds": round(time.monotonic() - start, 1),
        }

    @app.get("/model")
    async def describe() -> dict[str, Any]:
        colors = [predictor.palette[index].tolist() for index in range(len(predictor.classes))]
        return {
            "name": name,
            "label_space": predictor.space.name,
            "classes": list(predictor.classes),
            "colors": colors,
            "limits": {"megabytes": limits.body_bytes / 2**20, "megapixels": limits.pixels / 1e6},
        }

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        output, runs = _asked(request)
        with queue.place() as place:
            content = await image_bytes(request, limits.body_bytes, limits.seconds)

            def work() -> tuple[Any, str]:
                image = decode(content, predictor.image_rule, limits.pixels)
                counts.look_at(scale_remark(predictor, image))
                return answer(predictor, image, output, runs=runs)

            try:
                body, kind = await asyncio.wait_for(place.run(work), limits.seconds)
            except TimeoutError:
                raise RefusalError(504, "too_slow", f"no result within {limits.seconds:g} s") from None
        counts.segmented += 1
        return JSONResponse(body) if kind == "application/json" else Response(body, media_type=kind)

    return app


def _asked(request: Request) -> tuple[str, bool]:
    """Output and whether runs are wanted.

    Raises:
        RefusalError: 400, unknown parameters or values.
    """
    given = request.query_params
    output, runs = given.get("output", "overlay"), given.get("runs", "false")
    if unknown := sorted(set(given) - {"output", "runs"}):
        raise RefusalError(400, "bad_parameter", f"unknown parameter {unknown[0]!r}; known are output and runs")
    if output not in OUTPUTS:
        raise RefusalError(400, "bad_parameter", f"output {output!r}: expected one of {', '.join(OUTPUTS)}")
    if runs not in _FLAGS:
        raise RefusalError(400, "bad_parameter", f"runs {runs!r}: expected true or false")
    if _FLAGS[runs] and output != "json":
        raise RefusalError(400, "bad_parameter", "runs=true: with output=json only")
    return output, _FLAGS[runs]


def _answer_errors(app: FastAPI, counts: _Counts) -> None:
    """Every error as JSON of one form."""

    def told(error: RefusalError) -> JSONResponse:
        counts.refused += 1
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RefusalError)
    async def refused(_: Request, error: RefusalError) -> JSONResponse:
        return told(error)

    @app.exception_handler(DomainbridgeError)
    async def failed(_: Request, error: DomainbridgeError) -> JSONResponse:
        return told(RefusalError(422, "cannot_segment", str(error)))

    @app.exception_handler(MemoryError)
    async def too_large(_: Request, error: MemoryError) -> JSONResponse:
        logging.getLogger(__name__).warning("a request did not fit into memory: %s", error)
        message = "the image does not fit into the memory that is free now; send a smaller one, or try again later"
        return told(RefusalError(503, "no_memory", message))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = f"{request.method} {request.url.path}: {error.detail}"
        code = codes.get(error.status_code, "http")
        return told(RefusalError(error.status_code, code, message, dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return told(RefusalError(400, "bad_parameter", str(error)))

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        logging.getLogger(__name__).error("a request failed", exc_info=error)
        return told(RefusalError(500, "defect", "the service has a defect; its log says more"))
