"""Organisers' Markdown becomes HTML that cannot hurt a reader."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomed_site import markdown


def test_it_works() -> None:
    html = markdown.render("# Title\n\n*one* **two**\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n\n```python\nx < 1\n```\n")
    assert "<h1>Title</h1>" in html
    assert "<em>one</em> <strong>two</strong>" in html
    assert '<div class="table-scroll"><table class="table">' in html
    assert '<code class="language-python">x &lt; 1' in html
    assert "style" not in html  # alignment of cells would be an inline style


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "![x](javascript:alert(1))",
        '[x](http://a "onmouseover=alert(1)")',
        "<iframe src=//evil></iframe>",
        "[x](vbscript:x)",
    ],
)
def test_nothing_active_survives(text: str) -> None:
    html = markdown.render(text)
    assert "<script" not in html
    assert "<iframe" not in html
    assert 'href="javascript' not in html
    assert 'src="javascript' not in html
    assert 'href="data:' not in html
    assert "<img src=x" not in html


@given(st.text(alphabet="<>\"'=/:()[]!#`*|\\ \nscriptonjavahef", max_size=200))
def test_no_text_makes_unknown_tags_or_attributes(text: str) -> None:
    html = markdown.render(text)
    allowed = {"class", "href", "src", "alt", "title", "rel", "start"}
    for tag in re.findall(r"<[a-z][^>]*>", html):
        names = set(re.findall(r'\s([a-zA-Z-]+)="[^"]*"', tag))
        assert names <= allowed, tag


def test_links_do_not_endorse() -> None:
    assert 'rel="nofollow noopener"' in markdown.render("[x](https://example.org)")


def test_documents_link_each_other() -> None:
    assert 'href="/docs/organisers/#data"' in markdown.render("[x](organisers.md#data)")
    assert 'href="/docs/organisers/"' in markdown.render("[x](./organisers.md)")
    assert 'href="/docs/organisers/"' in markdown.render("[x](../organisers.md)")
    assert 'href="/docs/model-membership/"' in markdown.render("[x](scenarios/model-membership.md)")


def test_the_title_is_the_first_heading() -> None:
    assert markdown.title("text\n# For `participants`\n# Second") == "For participants"
    assert markdown.title("no heading") == ""


def test_documents_show_the_pictures_beside_them() -> None:
    assert 'src="/docs/validation/null.svg"' in markdown.render("![a histogram](validation/null.svg)")
    assert 'src="https://example.org/a.svg"' in markdown.render("![x](https://example.org/a.svg)")
