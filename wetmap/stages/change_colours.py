"""Colours of a map of change: what stayed is pale, what changed has the colour of what it became, no two alike."""

from __future__ import annotations

from wetmap.classes import MapClass
from wetmap.products.change_table import NO_CHANGE, OTHER_CHANGE, OTHER_STABLE, ChangeTable, Shown

#: How much white is mixed into what stayed, and how much of the old class's colour into a transition, 0-1.
PALE, OLD = 0.65, 0.3
#: Groups: changes too small to be shown alone, classes that stayed and are as small, and all that stayed.
DARK_GREY, LIGHT_GREY = "#4d4d4d", "#e6e6e6"
#: Steps of 8-bit colour by which a colour moves that another entry has already.
STEP = 7

Rgb = tuple[int, int, int]


def colours_of(table: ChangeTable) -> tuple[MapClass, ...]:
    """The legend of a map of change, in order of code."""
    rgb = {item.code: item.rgb for item in table.classes}
    used: set[Rgb] = set()
    legend = []
    for row in table.shown:
        colour = _free(_colour(row, rgb), used)
        used.add(colour)
        legend.append(MapClass(row.code, row.name, "#{:02x}{:02x}{:02x}".format(*colour)))
    return tuple(legend)


def _colour(row: Shown, rgb: dict[int, Rgb]) -> Rgb:
    stayed = all(b == a for b, a in row.pairs)
    if len(row.pairs) > 1 or row.name in {NO_CHANGE, OTHER_STABLE, OTHER_CHANGE}:
        grey = LIGHT_GREY if stayed else DARK_GREY
        return int(grey[1:3], 16), int(grey[3:5], 16), int(grey[5:7], 16)
    before, after = row.pairs[0]
    return _mixed(rgb[after], (255, 255, 255), PALE) if stayed else _mixed(rgb[after], rgb[before], OLD)


def _mixed(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round((1 - share) * a + share * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _free(colour: Rgb, used: set[Rgb]) -> Rgb:
    """The colour, or the next one that nobody has."""
    while colour in used:
        red, green, blue = colour
        colour = (red + STEP) % 256, (green + 3 * STEP) % 256, (blue + 5 * STEP) % 256
    return colour
