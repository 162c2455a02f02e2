"""Pure functions from scenes to features: no files, no network, no clock."""
