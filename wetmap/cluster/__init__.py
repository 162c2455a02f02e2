"""Workers from the recipe, and bounded streaming of tasks through them: here, in jobs of a queue, or on a scheduler."""

from wetmap.cluster.limits import THREAD_VARIABLES, environment, limited_threads
from wetmap.cluster.queues import cancel_submitted
from wetmap.cluster.reasons import explain
from wetmap.cluster.stream import DEATHS_ALLOWED, WAITING_PER_WORKER
from wetmap.cluster.workers import Workers, count_cores

__all__ = [
    "DEATHS_ALLOWED",
    "THREAD_VARIABLES",
    "WAITING_PER_WORKER",
    "Workers",
    "cancel_submitted",
    "count_cores",
    "environment",
    "explain",
    "limited_threads",
]
