"""Pictures in a font of one's own: its widths, and what each format names."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import get_data_path

from tests.test_diagram import assert_tidy
from vggscope.drawing import diagram
from vggscope.drawing.fonts import FAMILIES, HELVETICA, measured_in, text_width
from vggscope.drawing.installed_fonts import installed_font
from vggscope.errors import OptionError
from vggscope.sources.resolve import resolve


@pytest.mark.parametrize(("family", "file"), [("DejaVu Serif", "DejaVuSerif"), ("dejavu sans mono", "DejaVuSansMono")])
def test_widths_are_those_of_the_file(family: str, file: str) -> None:
    from fontTools.ttLib import TTFont

    text = "conv1_1 3×3, 4.72 M (3.5%) → Ärger"
    for bold in (False, True):
        font = TTFont(Path(get_data_path(), "fonts/ttf", f"{file}{'-Bold' * bold}.ttf"))
        glyphs, advances = font.getBestCmap(), font["hmtx"].metrics
        units = sum(advances[glyphs[ord(char)]][0] for char in text)
        with measured_in(installed_font(family)):
            assert text_width(text, 10, bold) == pytest.approx(units * 10 / font["head"].unitsPerEm, abs=0.01)


def test_a_character_that_the_font_lacks_has_the_width_of_the_fallback() -> None:
    with measured_in(installed_font("cmr10")):
        own, borrowed = text_width("a", 1000), text_width("…", 1000)
    with measured_in(installed_font("DejaVu Sans")):
        assert own != text_width("a", 1000)
        assert borrowed == text_width("…", 1000)


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes", "table"])
def test_a_picture_in_another_font_is_tidy(style: str) -> None:
    drawn = diagram(resolve("A"), style, font="DejaVu Sans Mono")
    with measured_in(drawn.picture.font):
        assert_tidy(drawn)
    assert drawn.picture != diagram(resolve("A"), style).picture
    assert drawn.render("png") == diagram(resolve("A"), style, font="dejavu sans mono").render("png")


def test_every_format_names_the_font_and_others_like_it() -> None:
    drawn = diagram(resolve("A"), font="DejaVu Serif")
    assert 'font-family="DejaVu Serif, Times New Roman, Liberation Serif,' in drawn.render().decode()
    assert 'fontname="DejaVu Serif,Times New Roman"' in drawn.source
    assert b"DejaVuSerif-Bold" in drawn.render("pdf")
    assert b"DejaVuSans" not in drawn.render("pdf")


def test_a_font_with_the_widths_of_helvetica_need_not_be_installed() -> None:
    drawn = diagram(resolve("A"), font="arial")
    assert drawn.picture.font.families[:2] == ("Arial", FAMILIES[0])
    assert drawn.picture.parts == diagram(resolve("A")).picture.parts
    with measured_in(HELVETICA):
        assert_tidy(drawn)


def test_an_unknown_font_is_told_what_there_is() -> None:
    with pytest.raises(OptionError, match="font 'DejaVu Serf' is not installed here, did you mean") as caught:
        diagram(resolve("A"), font="DejaVu Serf")
    assert caught.value.remedy.startswith("font is one of ")
    assert text_width("224", 10) == 16.68  # the font of a picture does not outlive it
