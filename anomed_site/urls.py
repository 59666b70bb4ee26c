"""Every address of the site."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

from anomed_site import health, live, metrics, pages, tokens
from sandbox import operate

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]  # one door, with its limits

urlpatterns = [
    path("", pages.home, name="home"),
    path("challenges/", pages.challenge_list, name="challenge_list"),
    path("", include("submissions.urls")),
    path("live/<slug:slug>/", live.live, name="live"),
    path("docs/", pages.docs, name="docs"),
    path("docs/<slug:name>/", pages.docs_page, name="docs_page"),
    path("docs/<slug:name>/<slug:picture>.svg", pages.docs_picture, name="docs_picture"),
    path("profile/", pages.profile, name="profile"),
    path("profile/tokens/create/", tokens.create, name="token_create"),
    path("profile/tokens/<str:key>/revoke/", tokens.revoke, name="token_revoke"),
    path("accounts/", include("allauth.urls")),
    path("api/v1/", include("submissions.api.urls")),
    path("admin/sandbox/operate/", admin.site.admin_view(operate.page), name="operate"),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("healthz", health.Healthz.as_view(), name="healthz"),
    path("metrics", metrics.scrape, name="metrics"),
    path("robots.txt", pages.robots, name="robots"),
]
