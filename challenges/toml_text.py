"""Writing TOML, of which Python's library only reads: the few kinds of value that a challenge's folder needs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def section(name: str, values: Mapping[str, Any]) -> str:
    """`[name]` and a line per value; values of None are left out, and an empty section altogether.

    A name that begins with `[` makes an entry of a list of tables; an empty name writes no heading.
    """
    lines = [
        f"{key if _is_bare(key) else _string(key)} = {_value(value)}"
        for key, value in values.items()
        if value is not None
    ]
    if not lines:
        return ""
    heading = [f"[{name}]"] if name else []
    return "\n".join([*heading, *lines]) + "\n\n"


def _is_bare(key: str) -> bool:
    return key.isascii() and key.replace("_", "").replace("-", "").isalnum()


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return _string(value)


def _string(text: str) -> str:
    """A basic string: quotation marks, backslashes and control characters are escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\U{ord(sign):08X}" for sign in escaped) + '"'
