"""What a GIS analyst opens: Cloud-Optimized GeoTIFFs, the styles that come with them, and a table of areas."""
