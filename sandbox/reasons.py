"""Why a run or an image came to nothing: the enumeration that every other room shows, with a sentence and a hint each.

Importable without Django set up, because the isolated children that read hostile files raise `Rejected` too.
"""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Reason(TextChoices):
    """The named outcomes of DESIGN 3. Values are stable: they are stored and served by the API."""

    IMAGE_INVALID = "image_invalid", _("Image refused")
    REHEARSAL_FAILED = "rehearsal_failed", _("Rehearsal failed")
    TIMEOUT = "timeout", _("Time limit reached")
    OUT_OF_MEMORY = "out_of_memory", _("Out of memory")
    CRASHED = "crashed", _("Crashed")
    OUTPUT_MISSING = "output_missing", _("Output missing")
    OUTPUT_INVALID = "output_invalid", _("Output invalid")
    OUTPUT_TOO_LARGE = "output_too_large", _("Output too large")
    PLATFORM_FAULT = "platform_fault", _("Fault of the platform")


_SENTENCES = {
    Reason.IMAGE_INVALID: _("The uploaded archive is not an image that this server can run."),
    Reason.REHEARSAL_FAILED: _("The rehearsal on the public sample did not succeed."),
    Reason.TIMEOUT: _("The container was still running when its time was up, and was stopped."),
    Reason.OUT_OF_MEMORY: _("The container needed more memory than it may use, and was stopped."),
    Reason.CRASHED: _("The container ended with an error."),
    Reason.OUTPUT_MISSING: _("The container ended well, but a file that it has to write to /output was not there."),
    Reason.OUTPUT_INVALID: _("The container wrote something to /output that does not fit this step."),
    Reason.OUTPUT_TOO_LARGE: _("The container wrote more to /output than it may."),
    Reason.PLATFORM_FAULT: _("The server could not finish this run. It is not the image's fault and costs no quota."),
}

_HINTS = {
    Reason.IMAGE_INVALID: _("Build the image for linux/amd64 and upload the file that `docker save IMAGE` writes."),
    Reason.REHEARSAL_FAILED: _("Read the rehearsal's log, correct the image and upload it again."),
    Reason.TIMEOUT: _("Do less work per step, or look at the time limit in /input/task.json."),
    Reason.OUT_OF_MEMORY: _("Work on smaller pieces, or look at the memory limit in /input/task.json."),
    Reason.CRASHED: _(
        "Run the image on the public sample on your own machine. The root file system is read-only, there is no "
        "network, and the user is not root: write to /tmp and /output only."
    ),
    Reason.OUTPUT_MISSING: _("Compare the names of your output files with those that the challenge's page asks for."),
    Reason.OUTPUT_INVALID: _("Write plain files with exactly the columns and rows that the challenge's page asks for."),
    Reason.OUTPUT_TOO_LARGE: _("Write only what the step asks for, and look at the limits in /input/task.json."),
    Reason.PLATFORM_FAULT: _("Nothing is to be done on your side: enter it again, or wait for the operator."),
}


def gettext_noop(text: str) -> str:
    """Marks an English sentence for translation without translating it: children have no Django to do that."""
    return text


def sentence(reason: Reason | str) -> str:
    """What happened, for people, in the language of the reader."""
    return str(_SENTENCES[Reason(reason)])


def hint(reason: Reason | str) -> str:
    """What to do about it, for people, in the language of the reader."""
    return str(_HINTS[Reason(reason)])


class Rejected(Exception):
    """Something that came from outside does not fit: `reason` names it, `detail` is one plain English sentence."""

    def __init__(self, reason: Reason | str, detail: str) -> None:
        super().__init__(detail)
        self.reason = Reason(reason)
        self.detail = detail
