"""The shapes of the API. Reads say exactly what DESIGN 5 lets this reader see."""

import math
from typing import Any, cast
from uuid import UUID

from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from challenges.models import Challenge
from sandbox.contracts import Contract
from sandbox.models import Run
from submissions import blindness, boards, exchanges, timeline
from submissions.models import Duel, Step, Submission


class SignInSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    password = serializers.CharField(trim_whitespace=False, max_length=128)


class TokenSerializer(serializers.Serializer[Any]):
    token = serializers.CharField()
    expiry = serializers.DateTimeField(allow_null=True)


class OwnTeamSerializer(serializers.Serializer[Any]):
    challenge = serializers.SlugField()
    team = serializers.CharField()


class MeSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    name = serializers.CharField()
    teams = OwnTeamSerializer(many=True)


class ChallengeSerializer(serializers.ModelSerializer[Challenge]):
    title = serializers.SerializerMethodField()
    summary = serializers.SerializerMethodField()
    closes_at = serializers.SerializerMethodField()
    joined = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()

    class Meta:
        model = Challenge
        fields = ("slug", "title", "summary", "scenario", "status", "closes_at", "joined", "url")

    def get_title(self, challenge: Challenge) -> str:
        return challenge.text("title")

    def get_summary(self, challenge: Challenge) -> str:
        return challenge.text("summary")

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_closes_at(self, challenge: Challenge) -> Any:
        phase = challenge.current_phase
        return phase.closes_at if phase else None

    def get_joined(self, challenge: Challenge) -> bool:
        return challenge.pk in self.context["joined"]

    def get_url(self, challenge: Challenge) -> str:
        return str(self.context["request"].build_absolute_uri(f"/challenges/{challenge.slug}/"))


class ChallengeDetailSerializer(ChallengeSerializer):
    overview = serializers.SerializerMethodField()
    rules = serializers.SerializerMethodField()
    limits = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    columns = serializers.SerializerMethodField()
    target = serializers.SerializerMethodField()

    class Meta(ChallengeSerializer.Meta):
        fields = (*ChallengeSerializer.Meta.fields, "overview", "rules", "limits", "target", "columns")  # type: ignore[assignment]

    def get_overview(self, challenge: Challenge) -> str:
        return challenge.text("overview")

    def get_rules(self, challenge: Challenge) -> str:
        return challenge.text("rules")

    def get_target(self, challenge: Challenge) -> str:
        return challenge.dataset.schema.target

    @extend_schema_field(serializers.ListField(child=serializers.DictField()))
    def get_columns(self, challenge: Challenge) -> list[dict[str, Any]]:
        return [column.to_json() for column in challenge.dataset.schema.shared]


class JoinSerializer(serializers.Serializer[Any]):
    team = serializers.CharField(max_length=60)
    accept_rules = serializers.BooleanField()

    def validate_accept_rules(self, value: bool) -> bool:
        if not value:
            raise serializers.ValidationError(_("Accept the rules of the challenge to take part."))
        return value


class TeamSerializer(serializers.Serializer[Any]):
    team = serializers.CharField()


class EntrySerializer(serializers.Serializer[Any]):
    """What is entered: announced first, its bytes are uploaded to `upload.url` of the answer."""

    kind = serializers.ChoiceField(choices=Submission.Kind.choices)
    role = serializers.ChoiceField(choices=Submission.Role.choices, default=Submission.Role.ENTRY)
    name = serializers.CharField(max_length=80, required=False, default="")
    note = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    contract = serializers.ChoiceField(
        choices=Contract.choices,
        required=False,
        allow_blank=True,
        default="",
        help_text="How the image talks; without it the image's label org.anomed.contract says so, or else anomed/1.",
    )
    declared_epsilon = serializers.FloatField(
        required=False, allow_null=True, default=None, help_text="Of differential privacy; shown as not verified."
    )
    declared_delta = serializers.FloatField(required=False, allow_null=True, default=None)
    file_name = serializers.CharField(max_length=200)
    size = serializers.IntegerField(min_value=1, max_value=2**53)


class ChooseSerializer(serializers.Serializer[Any]):
    active = serializers.BooleanField()


class PickSerializer(serializers.Serializer[Any]):
    picked = serializers.BooleanField()


class FailureSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField()
    cause = serializers.CharField()
    sentence = serializers.CharField()
    hint = serializers.CharField()
    detail = serializers.CharField()


class RouteSerializer(serializers.Serializer[Any]):
    """A route of the exchange with a web server, on the public sample."""

    request = serializers.CharField(help_text="Method and address, as called or asked for.")
    by = serializers.ChoiceField(choices=["platform", "server"], help_text="Who asks.")
    status = serializers.IntegerField(
        allow_null=True, help_text="Of the last answer; 0: there was none, null: nobody asked."
    )
    outcome = serializers.ChoiceField(choices=["answered", "failed", "refused", "silent", "unasked"])


class AskedSerializer(serializers.Serializer[Any]):
    defense = serializers.UUIDField(source="defense.pk")
    name = serializers.CharField(source="defense.name")
    rows = serializers.IntegerField()


class QuestionsSerializer(serializers.Serializer[Any]):
    """What an attack that is a web server asked defenses about in its duels that are over."""

    budget = serializers.IntegerField(help_text="Rows that it may ask about in each duel.")
    exact = serializers.BooleanField(help_text="For organisers; else rows are rounded up to quarters of the budget.")
    defenses = AskedSerializer(many=True)


class StepSerializer(serializers.Serializer[Any]):
    step = serializers.CharField()
    rehearsal = serializers.BooleanField()
    state = serializers.ChoiceField(choices=Run.State.choices)
    seconds = serializers.IntegerField(allow_null=True, help_text="Private runs: rounded up to 30 s.")
    routes = RouteSerializer(many=True, help_text="Rehearsals of web servers.")


class DuelCountSerializer(serializers.Serializer[Any]):
    done = serializers.IntegerField()
    total = serializers.IntegerField()


class ScoreSerializer(serializers.Serializer[Any]):
    utility = serializers.FloatField(allow_null=True)
    privacy = serializers.FloatField(allow_null=True)
    worst_leak = serializers.FloatField(allow_null=True)
    mean_leak = serializers.FloatField(allow_null=True)
    score = serializers.FloatField(allow_null=True)
    rank = serializers.IntegerField(allow_null=True)
    rank_last = serializers.IntegerField(allow_null=True)


class UploadSerializer(serializers.Serializer[Any]):
    url = serializers.CharField()
    offset = serializers.IntegerField()
    size = serializers.IntegerField()


class ControlSerializer(serializers.Serializer[Any]):
    """The blind control of an attack: what it knows of people whom the release was not made from."""

    state = serializers.ChoiceField(choices=["waiting", "failed", "chance", "more"])
    leak = serializers.FloatField(allow_null=True, help_text="Beyond chance, which is 0.")
    low = serializers.FloatField(allow_null=True, help_text="Lower end of the 95 % interval.")
    high = serializers.FloatField(allow_null=True, help_text="Upper end of the 95 % interval.")
    reading = serializers.CharField(help_text="The same in the words of the field, such as an AUC; may be empty.")


class SubmissionSerializer(serializers.ModelSerializer[Submission]):
    challenge = serializers.SlugRelatedField[Challenge](slug_field="slug", read_only=True)
    sealed = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()
    steps = serializers.SerializerMethodField()
    duels = serializers.SerializerMethodField()
    score = serializers.SerializerMethodField()
    questions = serializers.SerializerMethodField()
    control = serializers.SerializerMethodField()
    upload = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()

    class Meta:
        model = Submission
        fields = (
            "id", "challenge", "kind", "role", "contract", "name", "note", "state", "active", "picked", "late",
            "sealed", "created_at", "declared_epsilon", "declared_delta", "failure", "steps", "duels", "score",
            "questions", "control", "upload", "url",
        )  # fmt: skip

    def get_sealed(self, submission: Submission) -> bool:
        """Whether it plays only in a final that is not revealed: its state tells nothing until then."""
        return submission.first_phase is not None and submission.first_phase.is_sealed

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, submission: Submission) -> dict[str, str] | None:
        return failure_of(submission)

    @extend_schema_field(StepSerializer(many=True))
    def get_steps(self, submission: Submission) -> list[dict[str, Any]]:
        return [step_facts(step) for step in timeline.steps_of(submission)]

    @extend_schema_field(DuelCountSerializer)
    def get_duels(self, submission: Submission) -> dict[str, int]:
        duels = timeline.count_duels(submission)
        return {"done": duels.over, "total": duels.total}

    @extend_schema_field(ScoreSerializer(allow_null=True))
    def get_score(self, submission: Submission) -> dict[str, Any] | None:
        standing = submission.standing
        if standing is None or submission.ready_at is None:
            return None
        fields = ("utility", "privacy", "worst_leak", "mean_leak", "score")
        row = self._board_of(submission).get(submission.pk)
        return {name: getattr(standing, f"public_{name}") for name in fields} | {
            "rank": row and row.rank,
            "rank_last": row and row.rank_last,
        }

    def _board_of(self, submission: Submission) -> dict[UUID, boards.Row]:
        """Each board is built once for all entries of an answer."""
        context = cast("dict[str, Any]", self.context)
        known: dict[tuple[int, str], dict[UUID, boards.Row]] = context.setdefault("boards", {})
        key = (submission.challenge_id, submission.kind)
        if key not in known:
            known[key] = boards.lines(submission.challenge, submission.kind)
        return known[key]

    @extend_schema_field(QuestionsSerializer(allow_null=True))
    def get_questions(self, submission: Submission) -> dict[str, Any] | None:
        if submission.contract != Contract.WEB:
            return None
        exact = submission.challenge.is_organiser(self.context["request"].user)
        asked = exchanges.questions(submission, exact=exact)
        return None if asked is None else dict(QuestionsSerializer(asked).data)

    @extend_schema_field(ControlSerializer(allow_null=True))
    def get_control(self, submission: Submission) -> dict[str, Any] | None:
        said = None if submission.is_defense else blindness.public(submission)
        return None if said is None else dict(ControlSerializer(said).data)

    @extend_schema_field(UploadSerializer(allow_null=True))
    def get_upload(self, submission: Submission) -> dict[str, Any] | None:
        upload = getattr(submission, "upload", None)
        if upload is None:
            return None
        url = self.context["request"].build_absolute_uri(reverse("api-upload", args=[upload.pk]))
        return {"url": url, "offset": upload.offset, "size": upload.size}

    def get_url(self, submission: Submission) -> str:
        return str(self.context["request"].build_absolute_uri(submission.get_absolute_url()))


class LogSerializer(serializers.Serializer[Any]):
    log = serializers.CharField()


class BaseImageSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    image_id = serializers.CharField()
    layers = serializers.ListField(child=serializers.CharField())


class RowSerializer(serializers.Serializer[Any]):
    """A line of a board. Defenses have utility, privacy and worst leak, attacks a mean leak.

    Entries that cannot be told apart share the ranks from `rank` to `rank_last`; both are null for a moment after the
    numbers have changed. `intervals` are 95 % intervals, by the name of the number.
    """

    rank = serializers.IntegerField(allow_null=True)
    rank_last = serializers.IntegerField(allow_null=True)
    rank_before = serializers.IntegerField(
        source="before.rank", default=None, help_text="On the board of a final: in development."
    )
    failed = serializers.BooleanField(help_text="On the board of a final: it came to no result.")
    submission = serializers.UUIDField(source="submission.pk")
    team = serializers.CharField()
    name = serializers.CharField()
    role = serializers.CharField()
    utility = serializers.FloatField(allow_null=True)
    privacy = serializers.FloatField(allow_null=True)
    worst_leak = serializers.FloatField(allow_null=True)
    mean_leak = serializers.FloatField(allow_null=True)
    novelty = serializers.FloatField(allow_null=True)
    score = serializers.FloatField(allow_null=True)
    intervals = serializers.DictField(
        child=serializers.ListField(child=serializers.FloatField(), min_length=2, max_length=2)
    )
    qualified = serializers.BooleanField()
    control = ControlSerializer(allow_null=True, help_text="Attacks: the blind control.")
    duels = serializers.IntegerField(source="duels_done")
    pending = serializers.IntegerField(source="duels_due")


class BoardsSerializer(serializers.Serializer[Any]):
    phase = serializers.CharField(allow_null=True)
    version = serializers.IntegerField()
    ranking = serializers.ChoiceField(choices=Challenge.Ranking.choices)
    ranked_by = serializers.CharField(help_text="The ranking of the defenses in one sentence.")
    defenses = RowSerializer(many=True)
    attacks = RowSerializer(many=True)


class CellSerializer(serializers.Serializer[Any]):
    attack = serializers.UUIDField()
    defense = serializers.UUIDField()
    leak = serializers.FloatField(allow_null=True)
    state = serializers.ChoiceField(choices=[*Duel.State.values, "void"])
    void_reason = serializers.CharField(help_text="Why an organiser took it out of all scores.")


class MatrixSerializer(serializers.Serializer[Any]):
    phase = serializers.CharField(allow_null=True)
    version = serializers.IntegerField()
    defenses = RowSerializer(many=True)
    attacks = RowSerializer(many=True)
    cells = CellSerializer(many=True)


def failure_of(submission: Submission) -> dict[str, str] | None:
    """Why an entry failed: the names that programs know, and the words of its page."""
    failure = timeline.failure_of(submission)
    if failure is None:
        return None
    return {
        "reason": submission.failure_reason,
        "cause": submission.failure_cause,
        "sentence": f"{failure.sentence} {failure.cause}".strip(),
        "hint": failure.hint,
        "detail": failure.detail,
    }


def step_facts(step: Step) -> dict[str, Any]:
    """What the team may know about a step: of runs on private data the time in steps of half a minute (DESIGN 5)."""
    seconds = timeline.seconds(step.run, exact=False)
    return {
        "step": step.name,
        "rehearsal": step.is_rehearsal,
        "state": step.run.state,
        "seconds": None if seconds is None else max(1, math.ceil(seconds)),
        "routes": [
            {
                "request": route.request,
                "by": "platform" if route.called else "server",
                "status": route.status,
                "outcome": route.outcome,
            }
            for exchange in exchanges.of_rehearsal([step])
            for route in exchange.all
        ],
    }
