"""What a challenge demands of the hosts: chosen by its organiser, told to participants, looked for by the check."""

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from challenges import bundles, checks, walls
from challenges.bundles import BundleError
from challenges.findings import SENTENCES
from challenges.forms import ChallengeForm
from sandbox.models import Host
from sandbox.offers import Wall

pytestmark = pytest.mark.django_db


def test_both_rooms_know_the_same_walls():
    assert list(walls.WALLS) == Wall.values


@pytest.mark.parametrize("names", ["gvisor", ["moat"], ["gvisor", "gvisor"], [["gvisor"]], {"gvisor": 1}, None])
def test_nothing_else_is_a_wall(clinic, names):
    clinic.walls = names
    with pytest.raises(ValidationError) as refused:
        clinic.full_clean()
    assert "walls" in refused.value.message_dict


def test_organiser_ticks_them(clinic, olga, client):
    page = ChallengeForm(instance=clinic).as_p()
    assert 'type="checkbox" name="walls" value="gvisor"' in page
    assert "gVisor: a kernel of its own" in page
    olga.is_superuser = True
    olga.save()
    client.force_login(olga)
    address = reverse("admin:challenges_challenge_change", args=[clinic.pk])
    assert 'name="walls"' in client.get(address).content.decode()


def test_participants_are_told(clinic, client):
    page = client.get(f"/challenges/{clinic.slug}/").content.decode()
    assert "no network" in page
    assert "gVisor" not in page
    clinic.walls = ["gvisor"]
    clinic.save()
    assert "and gVisor" in client.get(f"/challenges/{clinic.slug}/").content.decode()


def codes(challenge):
    return [finding.code for finding in checks._walls(challenge)]


def test_check_looks_for_a_host_that_offers_them(clinic):
    assert codes(clinic) == []
    clinic.walls = ["gvisor", "userns"]
    assert codes(clinic) == ["walls-absent"]
    Host.objects.create(name="one", url="unix:///one", walls=["standard", "gvisor"])
    Host.objects.create(name="two", url="unix:///two", walls=["standard", "userns"])
    assert codes(clinic) == ["walls-absent"]  # none offers both
    three = Host.objects.create(name="three", url="unix:///three", walls=["standard", "gvisor", "userns"])
    assert codes(clinic) == []
    Host.objects.filter(pk=three.pk).update(walls=["gvisor", "userns"])
    assert codes(clinic) == ["walls-absent"]  # it lacks a standard protection, and takes no run at all
    Host.objects.filter(pk=three.pk).update(walls=["standard", "gvisor", "userns"], state=Host.State.RETIRED)
    assert codes(clinic) == ["walls-absent"]
    _title, sentence = SENTENCES["walls-absent"]
    assert "gvisor, userns" in sentence % checks._walls(clinic)[0].facts


TOML = """
slug = "ward"
title = "The ward"
summary = "Who was in the training data?"
scenario = "model-membership"
[limits]
gpus = 1
gpu_memory_mb = 16000
walls = %s
"""


def test_folder_says_them(olga, tmp_path):
    (tmp_path / "challenge.toml").write_text(TOML % '["gvisor"]')
    challenge = bundles.load(folder=tmp_path, by=olga)
    assert (challenge.walls, challenge.gpu_memory_mb) == (["gvisor"], 16000)
    bundles.dump(challenge=challenge, folder=tmp_path / "again")
    written = (tmp_path / "again" / "challenge.toml").read_text()
    assert 'walls = ["gvisor"]' in written
    assert "gpu_memory_mb = 16000" in written
    assert bundles.read(tmp_path / "again").challenge["walls"] == ["gvisor"]


@pytest.mark.parametrize("value", ['"gvisor"', '["moat"]', "[1]", "true", '[["gvisor"]]'])
def test_folder_that_says_nonsense(olga, tmp_path, value):
    (tmp_path / "challenge.toml").write_text(TOML % value)
    with pytest.raises(BundleError, match="walls"):
        bundles.load(folder=tmp_path, by=olga)
