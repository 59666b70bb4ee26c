"""Challenges, teams, entries, boards over HTTP. Every write is an action; a refusal is a sentence with status 409."""

from typing import Any, cast

from allauth.account import app_settings as account_settings
from allauth.account.adapter import get_adapter
from allauth.account.utils import has_verified_email
from allauth.mfa.utils import is_mfa_enabled
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import FileResponse
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from knox.auth import TokenAuthentication
from knox.models import get_token_model
from rest_framework import generics, status
from rest_framework.exceptions import APIException, AuthenticationFailed, NotFound, PermissionDenied, Throttled
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from challenges.models import Challenge, Phase
from sandbox.models import Image
from submissions import actions, boards, logs
from submissions.api import serializers
from submissions.models import Membership, Submission
from submissions.views.common import visible_challenges


class Conflict(APIException):
    """The request is well formed, but not possible now; the detail is the action's sentence."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "refused"


class TokenView(APIView):
    """Sign in for a token, or give the present one back.

    A password alone opens no more here than on the website: its limits of failed attempts are the same, and who uses
    a second factor or has not confirmed their address gets tokens there only.
    """

    throttle_classes = (ScopedRateThrottle,)
    throttle_scope = "token"

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method == "POST" else [IsAuthenticated()]

    def get_authenticators(self) -> list[Any]:
        signing_in = self.request is not None and self.request.method == "POST"
        return [] if signing_in else super().get_authenticators()

    @extend_schema(request=serializers.SignInSerializer, responses=serializers.TokenSerializer)
    def post(self, request: Request) -> Response:
        data = serializers.SignInSerializer(data=request.data)
        data.is_valid(raise_exception=True)
        try:
            user = get_adapter(request._request).authenticate(request._request, **data.validated_data)
        except ValidationError as limit:
            raise Throttled(detail=limit.messages[0]) from limit
        if user is None or not user.is_active:
            raise AuthenticationFailed(_("The email address or the password is wrong."))
        if is_mfa_enabled(user):
            raise PermissionDenied(
                _("Your account signs in with a second factor. Make a token on your profile page and use that.")
            )
        if account_settings.EMAIL_VERIFICATION == "mandatory" and not has_verified_email(user, user.email):
            raise PermissionDenied(
                _("Sign in on the website once to confirm your email address. Then make a token on your profile page.")
            )
        instance, token = get_token_model().objects.create(user)
        return Response({"token": token, "expiry": instance.expiry})

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request) -> Response:
        if not isinstance(request.successful_authenticator, TokenAuthentication):
            raise PermissionDenied(_("Only a request that brings a token can give it back."))
        request.auth.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


class MeView(APIView):
    """Who the caller is, and in which teams."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(responses=serializers.MeSerializer)
    def get(self, request: Request) -> Response:
        user = cast(Any, request.user)  # signed in: permission_classes saw to it
        memberships = Membership.objects.filter(user=user).select_related("team", "challenge")
        teams = [{"challenge": one.challenge.slug, "team": one.team.name} for one in memberships]
        return Response({"email": user.email, "name": user.get_full_name(), "teams": teams})


@extend_schema(exclude=True)
class UnknownView(APIView):
    """Any other address of the API: an error like all others, whatever the method and whoever asks."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound(_("There is no such address."))


def visible_challenge(request: Request, slug: str) -> Challenge:
    """The challenge of this name; NotFound for what the caller may not see."""
    challenge = visible_challenges(request.user).filter(slug=slug).first()
    if challenge is None:
        raise NotFound(_("There is no such challenge."))
    return challenge


class ChallengeView(generics.GenericAPIView[Challenge]):
    """What the views of challenges share."""

    lookup_field = "slug"

    def get_queryset(self) -> QuerySet[Challenge]:
        if getattr(self, "swagger_fake_view", False):
            return Challenge.objects.none()
        return visible_challenges(self.request.user)

    def get_serializer_context(self) -> dict[str, Any]:
        user = self.request.user
        joined = Membership.objects.filter(user=user) if user.is_authenticated else Membership.objects.none()
        return {"request": self.request, "joined": set(joined.values_list("challenge", flat=True))}


class ChallengeListView(ChallengeView, generics.ListAPIView[Challenge]):
    """The challenges that the caller may see."""

    serializer_class = serializers.ChallengeSerializer


class ChallengeDetailView(ChallengeView, generics.RetrieveAPIView[Challenge]):
    """A challenge with its texts, limits and columns."""

    serializer_class = serializers.ChallengeDetailSerializer


class JoinView(APIView):
    """Takes part in a challenge, as a team of one."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(request=serializers.JoinSerializer, responses={201: serializers.TeamSerializer})
    def post(self, request: Request, slug: str) -> Response:
        data = serializers.JoinSerializer(data=request.data)
        data.is_valid(raise_exception=True)
        try:
            team = actions.join(
                challenge=visible_challenge(request, slug), user=request.user, team_name=data.validated_data["team"]
            )
        except actions.Refused as refusal:
            raise Conflict(str(refusal)) from refusal
        return Response({"team": team.name}, status=status.HTTP_201_CREATED)


PHASE = OpenApiParameter(
    "phase",
    enum=[Phase.Kind.DEVELOPMENT],
    description="Of this phase, also when a final is revealed; without it, of the phase that counts now.",
)


class BoardsView(APIView):
    """Both boards with the version that they belong to."""

    @extend_schema(responses=serializers.BoardsSerializer, parameters=[PHASE])
    def get(self, request: Request, slug: str) -> Response:
        challenge = visible_challenge(request, slug)
        phase = boards.phase_of(challenge, request.query_params.get("phase", ""))
        both = {
            "phase": phase.kind if phase else None,
            "version": challenge.version,
            "ranking": challenge.ranking,
            "ranked_by": boards.ranked_by(challenge),
            "defenses": boards.board(challenge=challenge, kind=Submission.Kind.DEFENSE, phase=phase),
            "attacks": boards.board(challenge=challenge, kind=Submission.Kind.ATTACK, phase=phase),
        }
        return Response(serializers.BoardsSerializer(both).data)


class MatrixView(APIView):
    """Every attack against every defense."""

    @extend_schema(responses=serializers.MatrixSerializer, parameters=[PHASE])
    def get(self, request: Request, slug: str) -> Response:
        challenge = visible_challenge(request, slug)
        phase = boards.phase_of(challenge, request.query_params.get("phase", ""))
        matrix = boards.matrix(challenge=challenge, phase=phase)
        cells = [
            {
                "attack": attack,
                "defense": defense,
                "leak": cell.leak,
                "state": cell.state,
                "void_reason": cell.void_reason,
            }
            for (attack, defense), cell in matrix.cells.items()
        ]
        kind = phase.kind if phase else None
        facts = {
            "phase": kind,
            "version": challenge.version,
            "defenses": matrix.defenses,
            "attacks": matrix.attacks,
            "cells": cells,
        }
        return Response(serializers.MatrixSerializer(facts).data)


class SampleView(APIView):
    """The public sample as a Parquet file."""

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: Request, slug: str) -> FileResponse:
        challenge = visible_challenge(request, slug)
        if not hasattr(challenge, "dataset"):
            raise NotFound(_("This challenge has no data yet."))
        return FileResponse(
            challenge.dataset.sample_path.open("rb"), as_attachment=True, filename=f"{challenge.slug}-sample.parquet"
        )


class BaseImageView(APIView):
    """The base images whose layers an archive may leave out."""

    pagination_class = None

    @extend_schema(responses=serializers.BaseImageSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response(serializers.BaseImageSerializer(Image.objects.bases(), many=True).data)


class EntryListView(generics.ListCreateAPIView[Submission]):
    """The caller's entries in a challenge; a new one is announced here and then uploaded."""

    permission_classes = (IsAuthenticated,)
    serializer_class = serializers.SubmissionSerializer

    def get_queryset(self) -> QuerySet[Submission]:
        if getattr(self, "swagger_fake_view", False):
            return Submission.objects.none()
        challenge = visible_challenge(self.request, self.kwargs["slug"])
        own = Submission.objects.of_user(self.request.user)
        if challenge.is_organiser(self.request.user):
            own = own | Submission.objects.filter(team=None)
        return own.filter(challenge=challenge).with_context().distinct()

    @extend_schema(request=serializers.EntrySerializer, responses={201: serializers.SubmissionSerializer})
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        data = serializers.EntrySerializer(data=request.data)
        data.is_valid(raise_exception=True)
        try:
            challenge = visible_challenge(request, kwargs["slug"])
            submission = actions.enter(challenge=challenge, by=request.user, **data.validated_data)
        except actions.Refused as refusal:
            raise Conflict(str(refusal)) from refusal
        return Response(self.get_serializer(submission).data, status=status.HTTP_201_CREATED)


class OwnEntryView(APIView):
    """Finds an entry that the caller may read; to others it does not exist."""

    permission_classes = (IsAuthenticated,)

    def submission(self, *, to_change: bool = False) -> Submission:
        readable = Submission.objects.readable_by(self.request.user).with_context()
        submission = readable.filter(pk=self.kwargs["pk"]).first()
        if submission is None:
            raise NotFound(_("There is no such entry."))
        if to_change and not self.request.user.has_perm("submissions.change_submission", submission):
            raise PermissionDenied(_("This entry belongs to a team that is not yours."))
        return submission

    def answer(self, submission: Submission) -> Response:
        submission.refresh_from_db()
        return Response(serializers.SubmissionSerializer(submission, context={"request": self.request}).data)


class EntryView(OwnEntryView):
    """One entry: its state, steps, duels, and its score or failure."""

    @extend_schema(responses=serializers.SubmissionSerializer)
    def get(self, request: Request, pk: str) -> Response:
        return self.answer(self.submission())


class EntryLogView(OwnEntryView):
    """What the containers of the rehearsal printed. There is no such thing for runs on private data."""

    @extend_schema(responses=serializers.LogSerializer)
    def get(self, request: Request, pk: str) -> Response:
        return Response({"log": logs.rehearsal(self.submission())})


class WithdrawView(OwnEntryView):
    """Takes an entry out for good."""

    @extend_schema(request=None, responses=serializers.SubmissionSerializer)
    def post(self, request: Request, pk: str) -> Response:
        submission = self.submission(to_change=True)
        try:
            actions.withdraw(submission=submission, by=request.user)
        except actions.Refused as refusal:
            raise Conflict(str(refusal)) from refusal
        return self.answer(submission)


class ChooseView(OwnEntryView):
    """Puts an entry into the duels, or out of them."""

    @extend_schema(request=serializers.ChooseSerializer, responses=serializers.SubmissionSerializer)
    def post(self, request: Request, pk: str) -> Response:
        submission = self.submission(to_change=True)
        data = serializers.ChooseSerializer(data=request.data)
        data.is_valid(raise_exception=True)
        try:
            actions.choose(submission=submission, active=data.validated_data["active"], by=request.user)
        except actions.Refused as refusal:
            raise Conflict(str(refusal)) from refusal
        return self.answer(submission)


class PickView(OwnEntryView):
    """Picks an entry for the final, or takes that back."""

    @extend_schema(request=serializers.PickSerializer, responses=serializers.SubmissionSerializer)
    def post(self, request: Request, pk: str) -> Response:
        submission = self.submission(to_change=True)
        data = serializers.PickSerializer(data=request.data)
        data.is_valid(raise_exception=True)
        try:
            actions.pick(submission=submission, picked=data.validated_data["picked"], by=request.user)
        except actions.Refused as refusal:
            raise Conflict(str(refusal)) from refusal
        return self.answer(submission)


class LateView(OwnEntryView):
    """Runs an entry that was not picked in the final, without a rank."""

    @extend_schema(request=None, responses=serializers.SubmissionSerializer)
    def post(self, request: Request, pk: str) -> Response:
        submission = self.submission(to_change=True)
        try:
            actions.run_late(submission=submission, by=request.user)
        except actions.Refused as refusal:
            raise Conflict(str(refusal)) from refusal
        return self.answer(submission)
