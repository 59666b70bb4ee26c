"""What an operator has to look at in the registry."""

from collections.abc import Iterator

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sandbox.alarms import Condition
from submissions.registry import conf, room, store

KINDS = {"registry": gettext_lazy("Registry takes no pushes")}


def conditions() -> Iterator[Condition]:
    """Why nobody can push now, if nobody can."""
    if not conf.enabled():
        return
    if room.is_full():
        text = _("The registry for `docker push` has used up its room, %(size)s GB, or the disk has none left.")
        yield Condition("registry", "full", text % {"size": round(room.used_bytes() / 10**9)})
    elif not store.answers():
        yield Condition("registry", "silent", _("The registry for `docker push` does not answer."))
