"""The risk card over HTTP: the facts of its page, for programs."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from submissions import evidence
from submissions.api.views import visible_challenge
from submissions.models import Submission


class EstimateSerializer(serializers.Serializer[Any]):
    """A number with its 95 % interval."""

    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)


class LikenessSerializer(serializers.Serializer[Any]):
    """How like the data that it was made from a release is: 1 where no difference is seen. Never ranked by."""

    columns = serializers.FloatField(allow_null=True, help_text="Mean over columns, each by itself.")
    pairs = serializers.FloatField(allow_null=True, help_text="Mean over pairs of columns.")
    missing = serializers.FloatField(allow_null=True, help_text="Of the shares of empty cells; null if there are none.")


class FindingSerializer(serializers.Serializer[Any]):
    """leak = (rate - chance) / (1 - chance)."""

    metric = serializers.CharField()
    leak = EstimateSerializer()
    rate = EstimateSerializer(help_text="How often the attack is right.")
    chance = serializers.FloatField(help_text="The same by guessing, or among people who are not in the data.")


class StrongestSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    team = serializers.CharField()
    role = serializers.ChoiceField(choices=Submission.Role.choices)
    findings = FindingSerializer(many=True)
    control = serializers.ChoiceField(
        choices=["", "waiting", "failed", "chance", "more"], help_text="Its blind control; empty while there is none."
    )


class AttacksSerializer(serializers.Serializer[Any]):
    met = serializers.IntegerField()
    failed = serializers.IntegerField()
    voided = serializers.IntegerField()


class ExposureSerializer(serializers.Serializer[Any]):
    """How far people stand out; shares of people in equal bins of [0, 1]."""

    share = EstimateSerializer(help_text="People in the data who stand out beyond chance; below 0 by chance alone.")
    noise = serializers.FloatField(help_text="What membership dealt at random reaches in 39 of 40 cases.")
    threshold = serializers.FloatField()
    attacks = serializers.IntegerField()
    records = serializers.IntegerField(help_text="To two significant digits.")
    members = serializers.ListField(child=serializers.FloatField())
    others = serializers.ListField(child=serializers.FloatField())


class CriterionSerializer(serializers.Serializer[Any]):
    """Article 29 Working Party, Opinion 05/2014."""

    name = serializers.ChoiceField(choices=["singling_out", "linkability", "inference"])
    extent = serializers.ChoiceField(choices=["measured", "partly", "not_measured"])
    reason = serializers.CharField()


class EpsilonSerializer(serializers.Serializer[Any]):
    declared = serializers.FloatField(allow_null=True, help_text="By whoever entered it; nobody verified it.")
    delta = serializers.FloatField(allow_null=True)
    audited = serializers.FloatField(allow_null=True, help_text="A lower bound that the strongest attack proves.")
    contradicted = serializers.BooleanField()


class DataSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    sample_rows = serializers.IntegerField()
    sample_sha256 = serializers.CharField(help_text="The first 16 digits.")


class MethodSerializer(serializers.Serializer[Any]):
    scenario = serializers.CharField()
    phase = serializers.CharField()
    seeds = serializers.IntegerField()
    folds = serializers.IntegerField()
    resamples = serializers.IntegerField()
    metric = serializers.CharField()
    constants = serializers.DictField(child=serializers.FloatField(allow_null=True))
    contract = serializers.CharField()
    software = serializers.CharField()
    image = serializers.CharField()


class CardSerializer(serializers.Serializer[Any]):
    """What is known about a defense. Numbers of a development phase are rounded, and still move."""

    submission = serializers.UUIDField(source="submission.pk")
    name = serializers.CharField()
    team = serializers.CharField()
    role = serializers.ChoiceField(choices=Submission.Role.choices)
    challenge = serializers.SlugField()
    title = serializers.CharField()
    preliminary = serializers.BooleanField()
    qualified = serializers.BooleanField()
    utility = EstimateSerializer()
    likeness = LikenessSerializer(allow_null=True, help_text="Null where the game measures none.")
    worst_leak = EstimateSerializer(allow_null=True)
    privacy = EstimateSerializer(allow_null=True)
    score = EstimateSerializer(allow_null=True)
    strongest = StrongestSerializer(allow_null=True)
    attacks = AttacksSerializer()
    exposure = ExposureSerializer(allow_null=True)
    criteria = CriterionSerializer(many=True)
    epsilon = EpsilonSerializer()
    dataset = DataSerializer()
    method = MethodSerializer()
    as_of = serializers.DateTimeField()


class CardView(APIView):
    """The risk card of a defense, as this caller may see it."""

    @extend_schema(responses=CardSerializer)
    def get(self, request: Request, slug: str, pk: str) -> Response:
        challenge = visible_challenge(request, slug)
        submission = evidence.readable(challenge=challenge, user=request.user).filter(pk=pk).first()
        card = submission and evidence.card(submission, exact=challenge.is_organiser(request.user))
        if card is None:
            raise NotFound(_("There is no such risk card."))
        return Response(CardSerializer(card).data)
