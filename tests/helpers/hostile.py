"""Texts that want to be markup, script or a formula, and whether a page let them."""

from pathlib import Path

from tests.helpers import browser

# Ends what it may stand in (script, attribute, title, comment, SVG), then runs and shows something of its own.
HOSTILE = (
    "</script></style></title></pre></svg>--><script>window.hit = 1</script><img class=evil src=x onerror='window.hit = 1'>"
    "<b class=evil>\"'`${window.hit = 1}\u2028\u2029%{x}$\\frac$ &lt;i class=evil&gt; <a class=evil href='javascript:window.hit=1'>x</a>"
)


def harmless(page_file: Path, shown: bool = True) -> None:
    """A page in a real browser: no script of the hostile text ran, no element of it appeared, and it is there as text."""
    with browser.opened(page_file, "desktop") as page:
        assert page.evaluate("typeof window.hit") == "undefined"
        assert page.evaluate("document.querySelectorAll('.evil').length") == 0
        text = page.evaluate("document.body.textContent")
        assert ("window.hit = 1" in text) == shown
