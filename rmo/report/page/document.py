"""One self-contained HTML page: its style, plotly's script where there are plots, and what is for copying."""

import html
import platform
import re
from collections.abc import Iterable, Sequence
from importlib import metadata, resources

from rmo import __version__

COPY = "<button onclick='navigator.clipboard.writeText(this.nextElementSibling.textContent)'>copy</button>"
PACKAGES = ("jax", "flax", "optax", "numpy", "scipy", "transformers")
PAPER = """@inproceedings{gao2023scaling,
  title = {Scaling Laws for Reward Model Overoptimization},
  author = {Gao, Leo and Schulman, John and Hilton, Jacob},
  booktitle = {International Conference on Machine Learning},
  year = {2023},
  note = {arXiv:2210.10760}
}"""
SOFTWARE = """@software{rmo,
  title = {rmo: how hard may I optimise against this reward model?},
  version = {%s},
  note = {%s}
}"""


def page(title: str, body: Sequence[str]) -> str:
    """The page; headings of level 2 that have an id make its list of contents."""
    text = "".join(body)
    contents = re.findall(r"<h2 id=(\w+)>(.*?)</h2>", text)
    links = "".join(f"<a href='#{name}'>{heading}</a>" for name, heading in contents)
    text = text.replace("</h1>", f"</h1><nav>{links}</nav>", 1) if len(contents) > 1 else text
    script = ""
    if "class=plot" in text:
        from plotly.offline import get_plotlyjs

        script = f"<script>{get_plotlyjs()}</script>"
    style = (resources.files("rmo.report.page") / "page.css").read_text()
    head = "<!doctype html><html lang=en><meta charset=utf-8>"
    head += "<meta name=viewport content='width=device-width,initial-scale=1'>"
    head += f"<link rel=icon href='data:,'><title>rmo: {html.escape(title)}</title><style>{style}</style>{script}"
    return f"{head}<body>{text}</body></html>\n"


def to_copy(title: str, text: str) -> str:
    """Text behind a heading that opens, with a button that copies it."""
    return f"<details><summary>{html.escape(title)}</summary>{COPY}<pre>{html.escape(text)}</pre></details>"


def tsv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as spreadsheets take them."""
    return "\n".join("\t".join(map(str, row)) for row in rows)


def versions() -> str:
    """Of what drew this page."""
    lines = [f"rmo {__version__}", f"python {platform.python_version()}"]
    lines += [f"{package} {metadata.version(package)}" for package in PACKAGES]
    return "\n".join(lines)


def citation(experiment: str) -> str:
    """BibTeX of this code, with the experiment, and of the paper."""
    return SOFTWARE % (__version__, f"experiment {experiment}") + "\n" + PAPER
