"""Where the map lies: the area of interest and the one grid everything is on."""

from wetmap.geo.aoi import Aoi, read_aoi
from wetmap.geo.grid import Block, Grid, make_grid

__all__ = ["Aoi", "Block", "Grid", "make_grid", "read_aoi"]
