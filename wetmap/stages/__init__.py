"""The staged pipelines, one file per stage: simulate, plan, fetch, cubes, train, predict, mosaic, report."""
