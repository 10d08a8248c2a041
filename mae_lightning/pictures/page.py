"""All figures on one page that needs nothing else: no file beside it, and nothing from the network."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Section:
    """One figure of the page.

    Attributes:
        name: Short name, for the table of contents.
        caption: What to look for.
        frames: PNG files by label; several make a slider.
        shown: The frame that is shown first.
    """

    name: str
    caption: str
    frames: Mapping[str, bytes]
    shown: int = 0


def page(title: str, sections: Sequence[Section], absent: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        title: Above.
        sections: The figures.
        absent: Figures that could not be drawn, with the reason.
    """
    contents = " · ".join(f'<a href="#{escape(section.name)}">{_words(section.name)}</a>' for section in sections)
    missing = "".join(f"<li><b>{_words(name)}</b>: {escape(reason)}</li>" for name, reason in absent.items())
    parts = [f"<h1>{escape(title)}</h1>", f"<nav>{contents}</nav>", *map(_figure, sections)]
    if missing:
        parts.append(f"<h2>Not drawn</h2><ul>{missing}</ul>")
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(parts), script=_SCRIPT)


def _figure(section: Section) -> str:
    labels = list(section.frames)
    images = "".join(
        f'<img alt="{_words(section.name)}, {escape(label)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}"{"" if number == section.shown else " hidden"}>'
        for number, (label, picture) in enumerate(section.frames.items())
    )
    slider = ""
    if len(labels) > 1:
        slider = (
            f'<label class="slider"><output>{escape(labels[section.shown])}</output> {escape(labels[0])}'
            f' <input type="range" min="0" max="{len(labels) - 1}" step="1"'
            f' value="{section.shown}"> {escape(labels[-1])}</label>'
        )
    return (
        f'<figure id="{escape(section.name)}"><h2>{_words(section.name)}</h2>'
        f"<figcaption>{escape(section.caption)}</figcaption>{slider}<div>{images}</div></figure>"
    )


def _words(name: str) -> str:
    return escape(name.replace("_", " ").capitalize())


_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #f6f6f4; --faint: #595959; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #17181a; --faint: #a8a8a8; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 0; } nav, figcaption { color: var(--faint); }
a { color: inherit; } figure { margin: 2.5rem 0; } figcaption { max-width: 46rem; margin: .3rem 0 .8rem; }
img { max-width: 100%; border-radius: 6px; background: #fff; } img[hidden] { display: none; }
.slider { display: flex; gap: .6rem; align-items: center; margin-bottom: .6rem; max-width: 46rem; }
.slider input { flex: 1; } output { min-width: 7rem; font-weight: 600; }
"""
_SCRIPT = """
for (const figure of document.querySelectorAll("figure")) {
  const slider = figure.querySelector("input");
  if (!slider) continue;
  const images = [...figure.querySelectorAll("img")];
  const show = () => {
    images.forEach((image, number) => { image.hidden = number !== Number(slider.value); });
    figure.querySelector("output").textContent = images[slider.value].alt.split(", ").pop();
  };
  slider.addEventListener("input", show);
  show();
}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
