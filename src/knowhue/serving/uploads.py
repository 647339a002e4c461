"""From a request to the bytes of one image and the options beside it; in memory, never on disk, never by a name."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from knowhue.serving.refusals import Refusal

FIELD = "image"
MOST_FIELDS = 80
LONGEST_FIELD = 4096
_WAYS = "`multipart/form-data` with a file `image`, or the image's bytes with its type, such as `image/jpeg`"


class Upload(NamedTuple):
    """What came.

    Attributes:
        data: of the image's file.
        query: names and values of options there.
        form: the same, beside the image.
    """

    data: bytes
    query: list[tuple[str, str]]
    form: list[tuple[str, str]]


async def receive_upload(request: Request) -> Upload:
    """Read a request whole.

    Raises:
        Refusal: it is of another type, damaged, or has no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = list(request.query_params.multi_items())
    if kind == "multipart/form-data":
        data, form = await _from_form(request)
        return Upload(data, query, form)
    if not kind.startswith("image/"):
        raise Refusal(415, "kind", f"`Content-Type` should be {_WAYS}. Found another.")
    return Upload(_some(b"".join([chunk async for chunk in request.stream()])), query, [])


async def _from_form(request: Request) -> tuple[bytes, list[tuple[str, str]]]:
    parser = _InMemory(
        request.headers, _chunks(request), max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, "form", f"The form should be {_WAYS}. Found: {error.message}") from None
    try:
        files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        if [name for name, _ in files] != [FIELD]:
            raise Refusal(
                400, "form", f"The form should have one file, named `{FIELD}`. Found another, or none."
            )
        data = _some(await files[0][1].read())
    finally:
        parser.close()
    return data, [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


class _InMemory(MultiPartParser):
    """Uploads are small enough for memory, and nothing of them may reach a disk."""

    spool_max_size = 1 << 62

    def close(self) -> None:
        """Close all files; a form that breaks off does not name the last one."""
        for file in self._files_to_close_on_error:
            file.close()


async def _chunks(request: Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        yield chunk


def _some(data: bytes) -> bytes:
    if not data:
        raise Refusal(400, "form", f"`{FIELD}` should be the bytes of an image. Found none.")
    return data
