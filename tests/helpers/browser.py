"""A real browser without a window, for pages."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@contextlib.contextmanager
def opened(file: Path, size: str, **context: Any) -> Iterator["Page"]:
    """A file as a page. At the end it fails if the console said anything, or anything but the file was requested."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    said, asked = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZES[size], **context).new_page()  # type: ignore[arg-type]
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.absolute().as_uri())
        yield page
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.absolute().as_uri()]


def hover(page: "Page", plot: str, trace: int, point: int) -> str:
    """What the tooltip says with the pointer on one point of a trace of a plotly figure."""
    page.locator(f"#{plot}").scroll_into_view_if_needed()
    place = page.evaluate(
        """([plot, trace, point]) => { const g = document.getElementById(plot), t = g.data[trace], l = g._fullLayout,
        box = g.getBoundingClientRect(); const at = (axis, values) => axis._offset + axis.d2p(values[point]);
        return [box.left + at(l.xaxis, t.x), box.top + at(l.yaxis, t.y)] }""",
        [plot, trace, point],
    )
    page.mouse.move(0, 0)
    page.locator(f"#{plot} .hoverlayer .hovertext").first.wait_for(state="detached", timeout=5000)
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    return page.locator(f"#{plot} .hoverlayer .hovertext").first.text_content(timeout=5000) or ""
