"""What a gateway says of an exchange that failed. It has read what a stranger sent: so this is read in a child."""

import json
import re
from pathlib import Path

from sandbox.reasons import Reason, Rejected, gettext_noop

NAME = "exchange.json"
MAX_BYTES = 1 << 16
_ROUTE = r"/[A-Za-z0-9/_.?=&-]{0,100}"
_CALL = rf"(?:GET|POST) {_ROUTE}"
_KINDS = re.compile(
    rf"{_CALL} (?:was answered by [1-5][0-9]{{2}}|failed: [a-zA-Z: ]{{1,60}})\."
    rf"|It never answered {_CALL} with status [0-9]{{3}} and JSON\."
    rf"|Nothing was posted to {_ROUTE}(?:, {_ROUTE}){{0,3}}\."
)


def problem(path: str) -> dict[str, str]:
    """`problem` is the gateway's sentence if it is one of those that it knows, else nothing. Raises `Rejected`."""
    with Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        said = json.loads(content)["problem"] if len(content) <= MAX_BYTES else ""
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Rejected(Reason.OUTPUT_INVALID, gettext_noop("The account of the exchange cannot be read.")) from error
    return {"problem": said if isinstance(said, str) and _KINDS.fullmatch(said) else ""}
