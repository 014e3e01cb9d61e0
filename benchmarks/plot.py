"""The ratios as bars in an SVG, without a plotting library."""

from collections.abc import Sequence
from html import escape

from .measure import Comparison

ROW, LEFT, WIDTH = 28, 420, 420  # px: height of a row, place of the bars, length of the longest


def svg(rows: Sequence[Comparison]) -> str:
    """A bar a row: how many times as fast as the literal form, with a mark at the bar that it has to reach."""
    longest = max(max(row.ratio, row.faster) for row in rows)
    height = ROW * (len(rows) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="100%" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18">times as fast as the literal form (line: the bar to reach)</text>',
    ]
    for i, row in enumerate(rows, 1):
        y, length, bar = ROW * i, WIDTH * row.ratio / longest, LEFT + WIDTH * row.faster / longest
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 18}" text-anchor="end">{escape(f"{row.part}: {row.size}")}</text>',
            f'<rect x="{LEFT}" y="{y + 4}" width="{length:.1f}" height="{ROW - 8}" fill="#4878a8"/>',
            f'<line x1="{bar:.1f}" x2="{bar:.1f}" y1="{y + 1}" y2="{y + ROW - 1}" stroke="#c44"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{y + 18}">{row.ratio:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
