"""wetmap: from an area of interest to a wetland map."""

__version__ = "0.1.0"
