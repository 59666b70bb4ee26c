"""Every text that a person reads exists in German, and the compiled file is the one that belongs to the texts."""

import ast
import gettext
import re
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from challenges.models import Challenge

FOLDER = settings.LOCALE_PATHS[0] / "de" / "LC_MESSAGES"
PLACES = re.compile(r"%\(\w+\)[sdf.]|\{\w+\}")


def messages() -> Iterator[tuple[str, list[str]]]:
    """Each message of the German file with its translations (one, or one per plural form)."""
    for block in (FOLDER / "django.po").read_text(encoding="utf-8").split("\n\n")[1:]:
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        parts: list[tuple[str, str]] = []
        for line in lines:
            if line.startswith('"'):
                parts[-1] = (parts[-1][0], parts[-1][1] + ast.literal_eval(line))
            else:
                keyword, _space, text = line.partition(" ")
                parts.append((keyword, ast.literal_eval(text)))
        yield parts[0][1], [text for keyword, text in parts if keyword.startswith("msgstr")]


def test_every_text_has_a_german_version() -> None:
    assert "fuzzy" not in (FOLDER / "django.po").read_text(encoding="utf-8")
    assert [message for message, translations in messages() if not all(translations)] == []


def test_translations_keep_the_places_for_values() -> None:
    for message, translations in messages():
        for translation in translations:
            assert sorted(set(PLACES.findall(translation))) == sorted(set(PLACES.findall(message))), message


def test_the_compiled_file_is_up_to_date() -> None:
    with (FOLDER / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for message, translations in messages():
        seen = compiled.ngettext(message, message, 1) if len(translations) > 1 else compiled.gettext(message)
        assert seen == translations[0]


@pytest.mark.django_db
def test_germans_read_german(client: Client, clinic: Challenge) -> None:
    page = client.get(reverse("challenge_boards", args=[clinic.slug]), headers={"Accept-Language": "de"})
    text = page.content.decode()
    for word in ("Ranglisten", "Verteidigungen", "Größtes Leck", "Der erste Platz ist frei"):
        assert word in text
