"""Bar charts as SVG: one bar for each median, a whisker from the least to the most that was measured."""

from xml.sax.saxutils import escape

WIDTH = 760
NAMES = 150  # Left of the bars.
WORDS = 130  # Right of the longest bar.
ROW = 30
BAR = 18
TOP = 44
BOTTOM = 14
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.quiet { fill: #6e7781 }
.bar { fill: #b6bec7 }
.ours { fill: #0b7285 }
.whisker { stroke: #24292f; stroke-width: 1.5 }
""".strip()


def bars(title, rows, ours, words):
    """A chart of `rows`: (name, median, least, most), or (name, None, None, None) where there is no figure.

    The bar of the name `ours` stands out; `words` writes the number beside a bar.
    """
    highest = max((most for _, _, _, most in rows if most is not None), default=0) or 1
    height = TOP + ROW * len(rows) + BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text class="title" x="14" y="26">{escape(title)}</text>',
    ]
    for place, (name, median, least, most) in enumerate(rows):
        middle = TOP + ROW * place + ROW / 2
        text = f'y="{middle + 4.5:.1f}"'
        lines.append(f'<text x="{NAMES - 10}" {text} text-anchor="end">{escape(name)}</text>')
        if median is None:
            lines.append(f'<text class="quiet" x="{NAMES}" {text}>no figure</text>')
            continue
        end, low, high = (NAMES + value / highest * (WIDTH - NAMES - WORDS) for value in (median, least, most))
        top = middle - 4
        lines += [
            f'<rect class="bar{" ours" if name == ours else ""}" x="{NAMES}" y="{middle - BAR / 2:.1f}" '
            f'width="{max(end - NAMES, 1):.1f}" height="{BAR}"/>',
            f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {top:.1f}v8M{high:.1f} {top:.1f}v8"/>',
            f'<text x="{high + 9:.1f}" {text}>{escape(words(median))}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
