from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SubmissionsConfig(AppConfig):
    name = "submissions"
    verbose_name = _("Submissions")

    def ready(self) -> None:
        from sandbox import purposes  # models exist only now
        from submissions import permissions  # noqa: F401 -- registers who may do what
        from submissions.purpose import SubmissionStep
        from submissions.steps import PURPOSE

        purposes.register(PURPOSE, SubmissionStep())
