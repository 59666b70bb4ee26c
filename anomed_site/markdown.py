"""Markdown written by organisers, as HTML that cannot hurt a reader."""

import re
from typing import Any

import nh3
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol", "p",
    "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}, "code": {"class"}}
# markdown-it writes the alignment of cells as a style attribute, which the site's policy forbids.
_parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
_DOCUMENT_LINK = re.compile(r"^(?:\./|\.\./|scenarios/)?([\w-]+)\.md(#[\w-]+)?$")
_DOCUMENT_PICTURE = re.compile(r"^(?:\./)?([\w-]+)/([\w-]+)\.svg$")


def render(text: str) -> SafeString:
    """HTML of `text`: no raw HTML, no script, no style, only http(s), mail and local links, all without endorsement."""
    html = nh3.clean(
        _parser.render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_keep,
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener",
    )
    scrolling = html.replace("<table>", '<div class="table-scroll"><table class="table">')
    return mark_safe(scrolling.replace("</table>", "</table></div>"))  # noqa: S308 -- cleaned by nh3


def title(text: str) -> str:
    """The first heading of a document, without its marks; empty if it has none."""
    heading = re.search(r"^#\s+(.+)$", text, flags=re.MULTILINE)
    return heading.group(1).strip().replace("`", "") if heading else ""


def _keep(tag: str, attribute: str, value: str) -> str | None:
    """Documents link each other, and their pictures, as files; on the site they are pages."""
    picture: Any = _DOCUMENT_PICTURE.match(value) if (tag, attribute) == ("img", "src") else None
    if picture:
        return reverse("docs_picture", args=[picture.group(1), picture.group(2)])
    link: Any = _DOCUMENT_LINK.match(value) if (tag, attribute) == ("a", "href") else None
    if link:
        return reverse("docs_page", args=[link.group(1)]) + (link.group(2) or "")
    if attribute == "class" and not re.fullmatch(r"language-[\w-]+", value):
        return None
    return value
