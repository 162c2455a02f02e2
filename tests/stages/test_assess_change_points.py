"""Points that are too few for the strata of a map of change are told."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from wetmap.assessment import Sample
from wetmap.errors import ReferenceWarning
from wetmap.stages.assess_change import FEW, _warn_of_few


def sample_of(points: int, strata: int) -> Sample:
    """Points shared out evenly over strata of one size, all seen as mapped."""
    stratum = np.arange(points, dtype=np.int64) % strata
    return Sample(stratum, stratum, stratum, np.full(strata, 1000.0), strata, False)


def test_few_points_for_many_strata_are_told_with_what_may_hide() -> None:
    with pytest.warns(ReferenceWarning) as told:
        _warn_of_few(sample_of(300, 24), 2400.0)
    said = str(told[0].message)
    assert "300 interpreted points for 24 strata are 12 for each" in said
    reach = float(re.findall(r"may still have ([\d.]+) ha", said)[0])
    # a third of a unit of prior beside 12 points in each stratum are 2.7 % of the area on average; the end lies above
    assert reach / 2400 == pytest.approx(0.045, abs=0.0005)
    assert "--least-ha" in said
    assert "--stable one" in said


def test_enough_points_are_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_few(sample_of(24 * FEW, 24), 2400.0)
