"""What containers print, made safe to show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.models import Image, Run
from submissions import logs


def test_it_keeps_text_tabs_and_lines() -> None:
    assert logs.readable("größer\tals\r\nzuvor\rdanach\n".encode()) == "größer\tals\nzuvor\ndanach\n"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"a\x00b\x07c\x9bd", "abc\ufffdd"),
        ("gut\u202ehcel\u202c".encode(), "guthcel"),
        ("a\u200bb\u2028c\ufeff".encode(), "abc"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_cannot_be_seen_is_gone(raw: bytes, shown: str) -> None:
    assert logs.readable(raw) == shown


@given(st.binary(max_size=300))
def test_it_never_fails_and_never_leaves_a_control_character(raw: bytes) -> None:
    text = logs.readable(raw)
    assert not any(ord(letter) < 32 and letter not in "\t\n" for letter in text)
    assert "\x1b" not in text


@pytest.mark.django_db
def test_of_a_long_log_the_end_is_shown(image: Image) -> None:
    run = Run.objects.create(purpose="x", step="fit", image=image, owner="x")
    assert logs.of_run(run) == ""
    run.folder.mkdir(parents=True)
    run.log_path.write_bytes(b"first" + b"." * 1000 + b"last")
    assert logs.of_run(run, most=10) == "......last"
