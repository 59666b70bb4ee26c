"""Hosts in the admin, by HTTP: what operators see and do, and who may not."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from anomed_site.models import User
from challenges.permissions import ORGANISERS
from sandbox import fleet, leases
from sandbox.hosts import certificates_of
from sandbox.models import Host, Run
from tests.conftest import person

LIST, ADD = reverse("admin:sandbox_host_changelist"), reverse("admin:sandbox_host_add")
NEW = {"name": "node2", "url": "tcp://127.0.0.1:9", "slots": 3, "image_room_gb": 50}


@pytest.fixture
def operator(transactional_db: None) -> User:
    operator = person("otto@hospital.test", is_staff=True)
    names = ["view_host", "add_host", "change_host"]
    operator.user_permissions.add(*Permission.objects.filter(codename__in=names))
    return User.objects.get(pk=operator.pk)


@pytest.fixture
def site(client: Client, operator: User) -> Client:
    client.force_login(operator)
    return client


def act(site: Client, action: str, *hosts: Host, **more: Any) -> str:
    response = site.post(LIST, {"action": action, "_selected_action": [host.pk for host in hosts], **more}, follow=True)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def test_adding(site):
    assert site.get(ADD).status_code == 200
    response = site.post(ADD, NEW)
    host = Host.objects.get(name="node2")
    assert (host.slots.count(), host.image_room_gb, host.joining) == (3, 50, True)
    page = site.get(response["Location"])
    assert "Waiting for its first answer" in page.content.decode()
    assert "refused" in page.content.decode()
    assert "PRIVATE KEY" not in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    assert 'http-equiv="refresh"' in site.get(response["Location"] + "?wait").content.decode()

    page = site.post(response["Location"], {"folder": "/srv/arena"})
    script = html.unescape(re.search(r"<textarea[^>]*>(.*)</textarea>", page.content.decode(), re.S)[1])
    assert script.startswith("#!/bin/sh")
    assert "FOLDER=/srv/arena" in script
    assert "PRIVATE KEY" in script
    assert "no-store" in page["Cache-Control"]
    assert "absolute path" in site.post(response["Location"], {"folder": "/srv;id"}).content.decode()


def test_adding_what_cannot_be(site):
    assert "tcp://ADDRESS:PORT" in html.unescape(site.post(ADD, NEW | {"url": "unix:///run/x"}).content.decode())
    assert "small letters" in site.post(ADD, NEW | {"name": "../x"}).content.decode()
    assert not Host.objects.exists()


def test_list_says_how_it_stands(site, host, queue, django_assert_max_num_queries):
    queue("true")
    leases.claim("me")
    with django_assert_max_num_queries(20):
        page = site.get(LIST).content.decode()
    assert "1 / 2" in page
    assert "standard" in page
    assert site.get(reverse("admin:sandbox_host_change", args=[host.pk])).status_code == 200


def test_out_of_service_and_back(site, host):
    act(site, "cordon", host)
    assert Host.objects.get().state == Host.State.CORDONED
    assert "is cordoned" in act(site, "cordon", host)
    act(site, "uncordon", host)
    assert "no new runs" in act(site, "drain", host)  # asks first
    assert Host.objects.get().state == Host.State.ACTIVE
    act(site, "drain", host, sure="1")
    assert Host.objects.get().state == Host.State.DRAINING


def test_retiring_asks_first(site, queue, host):
    dead = fleet.add(name="dead", url="tcp://127.0.0.1:9", slots=1)
    assert "never asked again" in act(site, "retire", dead, host)
    assert certificates_of("dead").exists()
    page = act(site, "retire", dead, host, sure="1")
    assert "still there" in page
    assert "this machine's own engine" in page
    assert set(Host.objects.values_list("name", "state")) == {("dead", "retired"), ("local", "active")}
    assert not certificates_of("dead").exists()
    join = reverse("admin:sandbox_host_join", args=[dead.pk])
    assert site.get(join).status_code == 404


def test_with_runs_under_way_it_is_only_cordoned(site, host, queue):
    dead = Host.objects.create(name="dead", url="tcp://127.0.0.1:9", walls=["standard"])
    dead.slots.create(number=1)
    fleet.cordon(host=host)
    queue("true")
    assert leases.claim("me").host == dead
    assert "under way" in act(site, "retire", dead, sure="1")
    assert Host.objects.get(name="dead").state == Host.State.CORDONED
    Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    act(site, "retire", dead, sure="1")
    assert Host.objects.get(name="dead").state == Host.State.RETIRED


@pytest.mark.parametrize("who", ["nobody", "participant", "organiser", "looker"])
def test_who_may_not(client, host, who):
    dead = fleet.add(name="dead", url="tcp://127.0.0.1:9", slots=1)
    if who != "nobody":
        user = person(f"{who}@hospital.test", is_staff=who != "participant")
        if who == "organiser":
            user.groups.add(*Group.objects.filter(name=ORGANISERS))
        if who == "looker":
            user.user_permissions.add(Permission.objects.get(codename="view_host"))
        client.force_login(User.objects.get(pk=user.pk))
    join = reverse("admin:sandbox_host_join", args=[dead.pk])
    for response in (client.get(ADD), client.post(ADD, NEW), client.get(join), client.post(join, {})):
        assert response.status_code in (302, 403)
        assert b"PRIVATE KEY" not in response.content
    client.post(LIST, {"action": "retire", "_selected_action": [dead.pk], "sure": "1"})
    client.post(LIST, {"action": "cordon", "_selected_action": [host.pk]})
    assert set(Host.objects.values_list("name", "state")) == {("dead", "cordoned"), ("local", "active")}
