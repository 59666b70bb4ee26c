"""Faults of a request that Django finds while it is read, as answers of the API and not as faults of the server."""

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import UnreadablePostError
from django.utils.translation import gettext_lazy as _
from drf_standardized_errors import handler
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"
    default_detail = _("What you sent is larger than this server takes here. Nothing of it was kept.")


class ExceptionHandler(handler.ExceptionHandler):
    """The handler of drf-standardized-errors, to which these would be errors with status 500."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        if isinstance(exc, RequestDataTooBig):
            return TooLarge()
        if isinstance(exc, SuspiciousOperation | UnreadablePostError):
            return ParseError(_("The request cannot be read."))
        return super().convert_known_exceptions(exc)
