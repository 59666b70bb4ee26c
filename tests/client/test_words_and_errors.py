"""What strangers wrote cannot steer the terminal; what the server refuses is a sentence; the token stays at home."""

import io

import httpx
import pytest
from anomed.api import Api, server_address
from anomed.problems import Problem, refusal
from anomed.words import Voice, cell, clean


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x9b31mb\x00\x08c\x7f", "a31mbc"),
        ("\x1b", ""),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("50 %\rdone\r\nnext\tcolumn", "50 %\ndone\nnext\tcolumn"),
        ("[red]Team[/red] :smile:", "[red]Team[/red] :smile:"),
    ],
)
def test_hostile_text(hostile: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert clean(hostile) == shown
    Voice().say(hostile)
    assert capsys.readouterr().out == shown.expandtabs(8) + "\n"


def test_hostile_cells(capsys: pytest.CaptureFixture[str]) -> None:
    Voice().table("Board", {"team": "team"}, [{"team": "[bold]\x1b[31mMallory\nand co[/bold]"}])
    printed = capsys.readouterr().out
    assert "[bold]Mallory and co[/bold]" in printed
    assert "\x1b" not in printed


def test_json_lines_are_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice(as_json=True)
    voice.record({"team": "\x1b[31m\x9bÄ"})
    voice.say("for people")
    printed = capsys.readouterr()
    assert printed.out == '{"team": "\\u001b[31m\\u009b\\u00c4"}\n'
    assert printed.err == "for people\n"


def test_cells() -> None:
    assert [cell(value) for value in (None, "", True, 0.12345, 3)] == ["–", "–", "yes", "0.12", "3"]


REQUEST = httpx.Request("GET", "https://a.example/api/v1/me")


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (
            httpx.Response(400, json={"errors": [{"code": "x", "detail": "Too long.", "attr": "note"}]}),
            "note: Too long.",
        ),
        (
            httpx.Response(403, json={"errors": [{"code": "x", "detail": "Quota used up.", "attr": None}]}),
            "Quota used up.",
        ),
        (
            httpx.Response(
                400, json={"errors": [{"detail": "One.", "attr": "non_field_errors"}, {"detail": "Two.", "attr": "a"}]}
            ),
            "One.\na: Two.",
        ),
        (httpx.Response(502, text="<html>Bad gateway</html>"), "The server answered 502 Bad Gateway."),
        (httpx.Response(500, json=["odd"]), "The server answered 500 Internal Server Error."),
        (httpx.Response(302, headers={"Location": "https://b.example/"}), "to https://b.example/"),
    ],
)
def test_refusals_are_sentences(response: httpx.Response, sentence: str) -> None:
    response.request = REQUEST
    assert sentence in str(refusal(response))


def test_addresses_as_people_type_them() -> None:
    assert server_address("arena.example.org/") == "https://arena.example.org"
    assert server_address("localhost:8000") == "http://localhost:8000"
    assert server_address("[::1]:8000") == "http://[::1]:8000"
    for typed in ("ftp://a.example", "https://", "https://user:pass@a.example", "https://a.example:port"):
        with pytest.raises(Problem, match="not an address"):
            server_address(typed)


def test_plain_http_only_to_this_machine() -> None:
    for local in ("http://localhost:8000", "http://127.0.0.1", "http://[::1]:80"):
        Api(local)
    for open_network in ("http://arena.example.org", "http://localhost.example.org", "http://127.0.0.1.example.org"):
        with pytest.raises(Problem, match="not encrypted"):
            Api(open_network)
        Api(open_network, insecure=True)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/u/1",
        "http://arena.example/u/1",
        "https://arena.example:444/u",
        "//evil.example/u",
        "https://arena.example@evil.example/",
    ],
)
def test_no_request_leaves_the_origin(elsewhere: str) -> None:
    api = Api("https://arena.example", token="t")
    with pytest.raises(Problem):
        api.request("PATCH", elsewhere, content=iter([b""]))


def test_addresses_of_the_same_origin() -> None:
    api = Api("https://arena.example/sub")
    assert api.url("/api/v1/uploads/1") == "https://arena.example/api/v1/uploads/1"
    assert api.url("https://arena.example:443/x") == "https://arena.example:443/x"
    assert api.path("submissions", "../../me?x") == "https://arena.example/sub/api/v1/submissions/..%2F..%2Fme%3Fx"


def test_a_short_pipe_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    with Voice().transfer("Uploading", 1000) as seen:
        for done in range(1000):
            seen(done)
    assert written.getvalue() == ""
