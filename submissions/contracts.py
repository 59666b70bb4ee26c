"""Which contract an entry's image keeps to, and whether it can play the challenge by it."""

from django.utils.translation import gettext as _

from challenges.models import Challenge
from challenges.scenarios import registry
from sandbox import actions as sandbox
from sandbox.contracts import Contract
from sandbox.models import Image

LABEL = "org.anomed.contract"


def refusal(challenge: Challenge, contract: str) -> str:
    """Why no image of that contract can play the challenge, in a sentence; nothing if it can."""
    if contract not in Contract.values:
        return _("There is no contract of that name. Choose one of: %(names)s.") % {"names": ", ".join(Contract.values)}
    if contract not in registry.get(challenge.scenario).contracts:
        return _("Web servers (web/1) cannot play this kind of challenge. Build an image that reads and writes files.")
    if not sandbox.can_serve(contract, challenge.walls):
        return _(
            "This challenge is run behind a wall (gVisor) through which web servers (web/1) cannot be talked to. Build "
            "an image that reads and writes files."
        )
    return ""


def playable(challenge: Challenge) -> list[str]:
    """The contracts whose images can play the challenge, the platform's own first."""
    return [contract for contract in Contract.values if not refusal(challenge, contract)]


def of_image(image: Image) -> str:
    """What the image's label says, or else the platform's own contract."""
    return image.labels.get(LABEL) or Contract.FILES
