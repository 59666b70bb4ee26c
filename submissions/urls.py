"""Addresses of the pages of challenges and entries."""

from django.urls import path

from submissions.views import boards, cards, challenge, entries, oversight, submit

urlpatterns = [
    path("challenges/<slug:slug>/", challenge.overview, name="challenge"),
    path("challenges/<slug:slug>/data/", challenge.data, name="challenge_data"),
    path("challenges/<slug:slug>/sample/", challenge.sample, name="challenge_sample"),
    path("challenges/<slug:slug>/rules/", challenge.rules, name="challenge_rules"),
    path("challenges/<slug:slug>/join/", challenge.join, name="challenge_join"),
    path("challenges/<slug:slug>/boards/", boards.boards, name="challenge_boards"),
    path("challenges/<slug:slug>/matrix/", boards.matrix, name="challenge_matrix"),
    path("challenges/<slug:slug>/cards/<uuid:pk>/", cards.card, name="card"),
    path("challenges/<slug:slug>/oversight/", oversight.page, name="challenge_oversight"),
    path("challenges/<slug:slug>/oversight/void/", oversight.void, name="challenge_void"),
    path("challenges/<slug:slug>/submissions/", entries.own, name="challenge_submissions"),
    path("challenges/<slug:slug>/submit/", submit.submit, name="submit"),
    path("submissions/<uuid:pk>/", entries.detail, name="submission"),
    path("submissions/<uuid:pk>/log/", entries.log, name="submission_log"),
    path("submissions/<uuid:pk>/withdraw/", entries.withdraw, name="submission_withdraw"),
    path("submissions/<uuid:pk>/choose/", entries.choose, name="submission_choose"),
    path("submissions/<uuid:pk>/pick/", entries.pick, name="submission_pick"),
]
