"""Who gets which token for the registry, and that the registry itself keeps to it."""

import base64
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken

from anomed_site.models import User
from challenges.models import Challenge
from submissions.models import Push, Team
from submissions.registry import access, conf, configuration, keys, names
from submissions.registry.keeper import Keeper
from tests.conftest import PASSWORD
from tests.sandbox.image_builder import ImageBuilder, sha256
from tests.submissions.registries import Pusher

pytestmark = pytest.mark.django_db
Answer = Any
LAYER = b"a layer of Ben's"


@pytest.fixture
def here(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site has a registry; no test that uses this alone talks to it."""
    settings.REGISTRY = {"address": "localhost:5000"}
    monkeypatch.setattr(conf, "enabled", lambda: True)


@pytest.fixture
def ask(client: Client, here: None) -> Callable[..., Answer]:
    """Asks for a token as a Docker client does."""

    def ask(email: str, secret: str, *scopes: str) -> Answer:
        basic = base64.b64encode(f"{email}:{secret}".encode()).decode()
        query = {"service": configuration.SERVICE, "account": email, "scope": list(scopes)}
        return client.get(reverse("registry-token"), query, headers={"Authorization": f"Basic {basic}"})

    return ask


def secret_of(user: User) -> str:
    return str(AuthToken.objects.create(user)[1])


def access_of(answer: Answer) -> Any:
    """What a token opens, by the certificate that the registry has."""
    assert answer.status_code == 200, answer.content
    certificate = keys._signer(conf.root() / "signing.pem")[1]
    claims = jwt.decode(
        answer.json()["token"], certificate.public_key(), algorithms=["ES256"], audience=configuration.SERVICE
    )
    assert claims["exp"] - time.time() <= 300
    return claims["access"]


def test_a_member_may_push_to_their_own_team(ask: Callable[..., Answer], ada: User, teams: dict[str, Team]) -> None:
    name = f"{names.prefix(teams['ada'])}/my-defense"
    answer = ask("ADA@uni.test", secret_of(ada), f"repository:{name}:push,pull")
    assert access_of(answer) == [{"type": "repository", "name": name, "actions": ["pull", "push"]}]
    assert answer.json()["expires_in"] == 300


def test_signing_in_alone_opens_nothing(ask: Callable[..., Answer], carl: User) -> None:
    assert access_of(ask("carl@web.test", secret_of(carl))) == []


def test_repositories_are_named_for_challenge_and_team(teams: dict[str, Team], clinic: Challenge) -> None:
    team = teams["ada"]
    assert names.prefix(team) == f"clinic/team-ada-{team.pk}"
    for name in ("Ärzte_ohne Grenzen (2)", "北京", "--", "a" * 60, "../..", "A.B.C"):
        other = Team.objects.create(challenge=clinic, name=name)
        assert names.team_of(f"{names.prefix(other)}/x") == other, name


@pytest.mark.parametrize("secret", [PASSWORD, "", "0" * 64, "not\0a token", "ä"])
def test_only_the_own_token_signs_in(ask: Callable[..., Answer], ada: User, ben: User, secret: str) -> None:
    answer = ask("ada@uni.test", secret)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert "a token from your profile page" in answer.json()["errors"][0]["message"]
    assert ask("ada@uni.test", secret_of(ben)).status_code == 401


def test_people_without_an_account_and_closed_accounts_get_nothing(
    ask: Callable[..., Answer], client: Client, ada: User
) -> None:
    assert client.get(reverse("registry-token")).status_code == 401
    secret = secret_of(ada)
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert ask("ada@uni.test", secret).status_code == 401


def test_guessing_is_limited_and_stops_nobody_who_knows(ask: Callable[..., Answer], ada: User) -> None:
    secret = secret_of(ada)
    answers = [ask("ada@uni.test", "0" * 64).status_code for _ in range(11)]
    assert answers == [401] * 10 + [429]
    assert {ask("ada@uni.test", secret).status_code for _ in range(15)} == {200}


@pytest.mark.parametrize(
    "name",
    [
        "{ben}/x",
        "{ada}",
        "{ada}/",
        "{ada}/a/b",
        "{ada}/../{ben}/x",
        "{ada}/..",
        "{ada}/%2e%2e/x",
        "{ada}/x%2f..",
        "{ada}//x",
        "/{ada}/x",
        "{ada}/X",
        "{ada}/x\n",
        "{ada}/x:defense",
        "clinic/team-ada-0{pk}/x",
        "clinic/team-eve-{pk}/x",
        "other/team-ada-{pk}/x",
        "clinic/team-ada-" + "9" * 30 + "/x",
        "{ada}/" + "x" * 300,
        "library/debian",
    ],
)
def test_no_other_name_is_opened(
    ask: Callable[..., Answer], ada: User, teams: dict[str, Team], here: None, name: str
) -> None:
    team = teams["ada"]
    name = name.format(ada=names.prefix(team), ben=names.prefix(teams["ben"]), pk=team.pk)
    secret = secret_of(ada)
    pushed = ask("ada@uni.test", secret, f"repository:{name}:push,pull")
    assert pushed.status_code == 403
    assert "You cannot push to this name" in pushed.json()["errors"][0]["message"]
    assert access_of(ask("ada@uni.test", secret, f"repository:{name}:pull")) == []


@pytest.mark.parametrize("scope", ["registry:catalog:*", "repository(plugin):{ada}/x:pull", "x", "::", "repository:x"])
def test_nothing_but_repositories_is_opened(
    ask: Callable[..., Answer], ada: User, teams: dict[str, Team], scope: str
) -> None:
    assert access_of(ask("ada@uni.test", secret_of(ada), scope.format(ada=names.prefix(teams["ada"])))) == []


def test_no_token_deletes(ask: Callable[..., Answer], ada: User, teams: dict[str, Team]) -> None:
    scope = f"repository:{names.prefix(teams['ada'])}/x"
    assert access_of(ask("ada@uni.test", secret_of(ada), f"{scope}:delete", f"{scope}:*")) == []


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"daily_quota": 0}, "has used all its entries of the last 24 hours"),
        ({"status": "closed"}, "does not take entries now"),
    ],
)
def test_who_may_enter_nothing_is_told_before_anything_is_sent(
    ask: Callable[..., Answer], ada: User, teams: dict[str, Team], limits: dict[str, Any], said: str
) -> None:
    Challenge.objects.update(**limits)
    answer = ask("ada@uni.test", secret_of(ada), f"repository:{names.prefix(teams['ada'])}/x:push,pull")
    assert answer.status_code == 403
    assert said in answer.json()["errors"][0]["message"]


# -- the registry itself


def test_a_token_for_one_repository_opens_no_other(pusher: Callable[..., Pusher], teams: dict[str, Team]) -> None:
    mine, yours = f"{names.prefix(teams['ada'])}/mine", f"{names.prefix(teams['ben'])}/yours"
    digest = pusher("ben", "yours").image(yours, "attack", ImageBuilder())
    assert pusher("ben", "yours").blob(yours, LAYER).status_code == 201
    ada = pusher("ada", "mine")

    for path in (f"{yours}/manifests/attack", f"{yours}/blobs/sha256:{sha256(LAYER)}", f"{yours}/tags/list"):
        assert ada.get(path).status_code == 401, path
    assert ada.get("_catalog").status_code == 401
    assert ada.blob(yours, b"planted").status_code == 401
    assert ada.manifest(yours, "attack", b"{}").status_code == 401
    assert ada.http.delete(f"/{yours}/manifests/{digest}").status_code == 401
    assert ada.blob(f"{names.prefix(teams['ada'])}/other", b"elsewhere").status_code == 401
    # Mounted from another's repository a layer is not: the registry asks for its bytes.
    query = {"mount": f"sha256:{sha256(LAYER)}", "from": yours}
    assert ada.http.post(f"/{mine}/blobs/uploads/", params=query).status_code != 201
    # A manifest that names another's layer without having sent it is refused.
    image = ImageBuilder(layers=[LAYER])
    files, descriptor = image.oci_blobs()
    assert ada.blob(mine, image.config_json).status_code == 201
    manifest = files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
    assert ada.manifest(mine, "defense", manifest).status_code == 400
    assert ada.get(f"{mine}/blobs/sha256:{sha256(LAYER)}").status_code == 404


@pytest.mark.parametrize("path", ["../{ben}", "%2e%2e/{ben}", "mine/../../../{ben}", "..%2f..%2f{ben}"])
def test_tricks_with_paths_reach_nothing(pusher: Callable[..., Pusher], teams: dict[str, Team], path: str) -> None:
    yours = f"{names.prefix(teams['ben'])}/yours"
    pusher("ben", "yours").image(yours, "attack", ImageBuilder())
    tricky = f"{names.prefix(teams['ada'])}/{path.format(ben=yours)}/manifests/attack"
    assert pusher("ada", "mine").http.get(f"/{tricky}", follow_redirects=True).status_code in (400, 401, 404)


def test_forged_expired_and_foreign_tokens_open_nothing(registry: Keeper, teams: dict[str, Team]) -> None:
    name = f"{names.prefix(teams['ada'])}/mine"
    good = access.of_ourselves(name, "pull", "push")
    assert Pusher(good).blob(name, b"data").status_code == 201
    claims = jwt.decode(good, options={"verify_signature": False})
    x5c = jwt.get_unverified_header(good)["x5c"]
    stranger = ec.generate_private_key(ec.SECP256R1())
    bad = {
        "no token": "",
        "unsigned": jwt.encode(claims, None, algorithm="none", headers={"x5c": x5c}),
        "signed by another": jwt.encode(claims, stranger, algorithm="ES256", headers={"x5c": x5c}),
        "changed": good[:-8] + "A" * 8,
        "expired": keys.sign({**claims, "exp": int(time.time()) - 3600, "nbf": int(time.time()) - 7200}),
        "for another service": keys.sign({**claims, "aud": "elsewhere"}),
        "by another issuer": keys.sign({**claims, "iss": "elsewhere"}),
    }
    for what, token in bad.items():
        assert Pusher(token).blob(name, b"data").status_code == 401, what


def test_only_the_registry_tells_of_pushes(client: Client, teams: dict[str, Team], here: None) -> None:
    target = {"repository": f"{names.prefix(teams['ada'])}/x", "tag": "attack", "digest": f"sha256:{'0' * 64}"}
    body = {"events": [{"action": "push", "target": target}]}
    for header in ("", "Bearer", f"Bearer {'0' * 64}", f"Bearer {conf.secret('http')}"):
        answer = client.post(
            reverse("registry-events"), body, content_type="application/json", headers={"Authorization": header}
        )
        assert answer.status_code == 401
    assert not Push.objects.exists()
    answer = client.post(
        reverse("registry-events"),
        body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {conf.secret('events')}"},
    )
    assert answer.status_code == 204
    assert Push.objects.get().team == teams["ada"]
