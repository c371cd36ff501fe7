"""The image of a request: its bytes, a raw body or a file in multipart/form-data, and its pixels; all within limits."""

import asyncio
import io
import warnings
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from domainbridge.data.bands import ImageRule
from domainbridge.data.decode import decode_image
from domainbridge.errors import DataError
from domainbridge.serve.refusal import RefusalError

__all__ = ["FORMATS", "decode", "image_bytes"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_FIELDS = 8
"""Most parts of a multipart body."""


async def image_bytes(request: Request, limit: int, seconds: float) -> bytes:
    """The image of a request.

    Args:
        request: POST with an image as its body, or as a file of multipart/form-data.
        limit: most bytes of the body.
        seconds: in which the whole body must arrive.

    Raises:
        RefusalError: 413, more bytes; 408, too slow; 400, no body, or a multipart body without a file.
    """
    try:
        body = await asyncio.wait_for(_body(request, limit), seconds)
    except TimeoutError:
        raise RefusalError(408, "slow_body", f"the body did not arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise RefusalError(400, "disconnected", "the body ended early") from None
    if not body:
        raise RefusalError(400, "empty_body", "the body is empty; send the bytes of an image, or a form with a file")
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        return await _file_of_form(request, body)
    return body


async def _body(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int) -> RefusalError:
    return RefusalError(
        413, "body_too_large", f"the body is larger than {limit / 2**20:g} MiB", {"Connection": "close"}
    )


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, once(), max_files=1, max_fields=_FIELDS).parse()
    except (MultiPartException, FormParserError, KeyError, ValueError) as error:
        reason = str(error) or "no boundary"
        raise RefusalError(400, "bad_form", f"the body is no multipart/form-data ({reason})") from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        content = await files[0].read() if files else b""
    finally:
        await form.close()
    if not content:
        raise RefusalError(400, "no_file", "the form has no file, or an empty one; send the image as a file")
    return content


def decode(content: bytes, rule: ImageRule, pixels: int) -> NDArray[np.uint8]:
    """RGB, uint8 (height, width, 3).

    Args:
        content: of an image file of one of ``FORMATS``.
        rule: bands and scale of the model's training images.
        pixels: most that are decoded.

    Raises:
        RefusalError: 415, no image; 413, more pixels; 422, a damaged image, or one that the rule does not fit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about damaged headers
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        raise RefusalError(415, "no_image", f"the body is no image of the formats {', '.join(FORMATS)}") from error
    if width * height > pixels:
        raise RefusalError(
            413, "too_many_pixels", f"{width}x{height} pixels; at most {pixels / 1e6:g} megapixels are accepted"
        )
    try:
        return decode_image(Path("image"), content, rule)
    except DataError as error:
        raise RefusalError(422, "damaged_image", str(error).removeprefix("image: ")) from error
