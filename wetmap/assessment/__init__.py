"""How good a map is and how much of each class there is, from a probability sample: pure, no files, no clock."""

from wetmap.assessment.disagreement import Disagreement, disagreement
from wetmap.assessment.estimate import Estimate, Estimates, Sample, estimate
from wetmap.assessment.intervals import Interval, Intervals, intervals

__all__ = [
    "Disagreement",
    "Estimate",
    "Estimates",
    "Interval",
    "Intervals",
    "Sample",
    "disagreement",
    "estimate",
    "intervals",
]
