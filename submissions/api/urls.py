from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView

from submissions.api import cards, registry, tus, views

urlpatterns = [
    path("schema", SpectacularAPIView.as_view(), name="api-schema"),
    path("token", views.TokenView.as_view(), name="api-token"),
    path("me", views.MeView.as_view(), name="api-me"),
    path("base-images", views.BaseImageView.as_view(), name="api-base-images"),
    path("challenges", views.ChallengeListView.as_view(), name="api-challenges"),
    path("challenges/<slug:slug>", views.ChallengeDetailView.as_view(), name="api-challenge"),
    path("challenges/<slug:slug>/join", views.JoinView.as_view(), name="api-join"),
    path("challenges/<slug:slug>/boards", views.BoardsView.as_view(), name="api-boards"),
    path("challenges/<slug:slug>/matrix", views.MatrixView.as_view(), name="api-matrix"),
    path("challenges/<slug:slug>/cards/<uuid:pk>", cards.CardView.as_view(), name="api-card"),
    path("challenges/<slug:slug>/sample", views.SampleView.as_view(), name="api-sample"),
    path("challenges/<slug:slug>/submissions", views.EntryListView.as_view(), name="api-entries"),
    path("submissions/<uuid:pk>", views.EntryView.as_view(), name="api-entry"),
    path("submissions/<uuid:pk>/log", views.EntryLogView.as_view(), name="api-entry-log"),
    path("submissions/<uuid:pk>/withdraw", views.WithdrawView.as_view(), name="api-withdraw"),
    path("submissions/<uuid:pk>/choose", views.ChooseView.as_view(), name="api-choose"),
    path("submissions/<uuid:pk>/pick", views.PickView.as_view(), name="api-pick"),
    path("submissions/<uuid:pk>/late", views.LateView.as_view(), name="api-late"),
    path("uploads/<uuid:pk>", tus.UploadView.as_view(), name="api-upload"),
    path("registry/token", registry.token, name="registry-token"),
    path("registry/events", registry.events, name="registry-events"),
    re_path("", views.UnknownView.as_view()),  # the last: whatever no pattern above knows, such as a malformed id
]
