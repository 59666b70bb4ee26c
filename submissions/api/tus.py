"""The bytes of an image: tus 1.0 (core protocol and termination) for uploads that the API has announced.

The upload is created by announcing an entry, not by tus: quota and rules are checked before gigabytes travel.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound, ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from submissions import uploads
from submissions.models import Upload

VERSION = "1.0.0"
MEDIA_TYPE = "application/offset+octet-stream"
_PIECE = 1 << 20


class OffsetStreamParser(BaseParser):
    """Hands the request's body on as it is, unread."""

    media_type = MEDIA_TYPE

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        return stream


class UploadView(APIView):
    """One announced upload, by tus 1.0: HEAD says how far it is, PATCH appends, DELETE gives it up."""

    permission_classes = (IsAuthenticated,)
    parser_classes = (OffsetStreamParser,)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Tus-Resumable"] = VERSION
        response["Cache-Control"] = "no-store"
        return response

    @extend_schema(responses={204: None})
    def options(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        return Response(
            status=status.HTTP_204_NO_CONTENT, headers={"Tus-Version": VERSION, "Tus-Extension": "termination"}
        )

    @extend_schema(responses={200: None})
    def head(self, request: Request, pk: UUID) -> Response:
        upload = self._upload(pk)
        return Response(headers={"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.size)})

    @extend_schema(request={MEDIA_TYPE: bytes}, responses={204: None})
    def patch(self, request: Request, pk: UUID) -> Response:
        if (request.content_type or "").split(";")[0].strip() != MEDIA_TYPE:
            raise UnsupportedMediaType(request.content_type or "")
        upload = self._upload(pk)
        try:
            upload = uploads.append(upload=upload, offset=_offset(request), chunks=_pieces(request._request))
        except uploads.UploadConflict as conflict:
            return self._problem(status.HTTP_409_CONFLICT, str(conflict))
        except uploads.UploadBusy as busy:
            return self._problem(status.HTTP_423_LOCKED, str(busy))
        except uploads.UploadTooLong as too_long:
            return self._problem(status.HTTP_413_REQUEST_ENTITY_TOO_LARGE, str(too_long))
        return Response(status=status.HTTP_204_NO_CONTENT, headers={"Upload-Offset": str(upload.offset)})

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        try:
            uploads.give_up(upload=self._upload(pk))
        except uploads.UploadConflict as conflict:
            return self._problem(status.HTTP_409_CONFLICT, str(conflict))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _upload(self, pk: UUID) -> Upload:
        upload = Upload.objects.select_related("submission__challenge", "submission__team").filter(pk=pk).first()
        if upload is None or not self.request.user.has_perm("submissions.change_submission", upload.submission):
            raise NotFound(_("There is no such upload. It may be complete, or have been given up."))
        return upload

    def _problem(self, code: int, sentence: str) -> Response:
        errors = [{"code": "refused", "detail": sentence, "attr": None}]
        return Response({"type": "client_error", "errors": errors}, status=code)


def _offset(request: Request) -> int:
    value = request.headers.get("Upload-Offset", "")
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise ParseError(_("The header Upload-Offset must say where the bytes go, as a whole number."))
    return int(value)


def _pieces(request: HttpRequest) -> Iterator[bytes]:
    while piece := request.read(_PIECE):
        yield piece
