"""What can go wrong, in words a user can act on.

Every message has three parts: what happened, the values, and what to do about it. The last part is an
argument of its own (``do``), so that no error can be raised without advice.
"""

from __future__ import annotations

import errno

#: Longest name of a file in a message about it, characters.
LONGEST_NAME = 300


class WetmapError(Exception):
    """A failure that the user can understand and mend. The command line prints it as one line and exits with 1.

    Args:
        what: What happened, with the values, as a sentence.
        do: What to do about it, as a sentence.
    """

    exit_code = 1

    def __init__(self, what: str, *, do: str) -> None:
        super().__init__(f"{what} {do}")
        self.what = what
        self.do = do

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Travel between worker processes (an exception with keyword arguments does not by itself)."""
        return _rebuild, (type(self), self.what, self.do)


def _rebuild(kind: type[WetmapError], what: str, do: str) -> WetmapError:
    return kind(what, do=do)


class UsageError(WetmapError):
    """The command was asked in a way it cannot work: exit code 2."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe has an unknown key, a wrong unit or a contradiction."""


class AoiError(UsageError):
    """The area of interest cannot be used: missing, empty, invalid, without CRS, across the antimeridian."""


class SourceError(WetmapError):
    """Imagery cannot be searched or read."""


class MissingSourceError(SourceError, UsageError):
    """The recipe names a catalogue, a folder or a file of imagery that is not there: exit code 2."""


class UnusableFileError(SourceError):
    """A file is not there, must not be read or is no raster: no part of it can be read, however often one tries."""


class ReferenceDataError(WetmapError):
    """Reference polygons, points or rasters cannot be used."""


class SplitError(WetmapError):
    """The reference data cannot be split as asked."""


class TrainingError(WetmapError):
    """A model cannot be trained on these samples."""


class AssessmentError(WetmapError):
    """A sample cannot be drawn, or says too little of the map."""


class BundleError(WetmapError):
    """A model bundle is damaged, foreign, or does not fit the cube."""


class WorkspaceError(WetmapError):
    """The workspace cannot be read or written."""


def full_disk(error: OSError) -> WorkspaceError:
    """The error for a full disk, from the system's own."""
    where = f" ({error.filename})" if error.filename else ""
    return WorkspaceError(
        f"The disk is full{where}.", do="Free some space and run the same command again; what is finished stays."
    )


#: What the system says where it refuses a file for a reason that is no defect of ours.
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO, errno.ESTALE)


def refused_file(error: OSError) -> WorkspaceError:
    """The error for a file that the system does not let be read or written, from the system's own."""
    where = f": {error.filename}" if error.filename else ""
    return WorkspaceError(
        f"The system refuses a file ({error.strerror}{where}).",
        do="Mend the folder's permissions or its disk, and run the same command again; what is finished stays.",
    )


def unusable_path(error: OSError) -> WorkspaceError:
    """The error for a file or folder that the system refuses, from the system's own."""
    name = str(error.filename)
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    return WorkspaceError(
        f"{shown} cannot be used ({error.strerror}).",
        do="Check its name, that it is what it should be (a file or a folder), and that you may read and write there.",
    )


class LockedError(WorkspaceError):
    """Another process works on the same stage and shard."""


class ClusterError(WetmapError):
    """Jobs cannot be submitted, no scheduler answers, or a worker differs from the process that leads."""


class WorkersLostError(WetmapError):
    """Worker processes died: the one that worked on a block, again and again, or all of them for good."""


class SubmitError(WetmapError):
    """Slurm refuses a job, or jobs of an earlier submission are still there."""


class TooManyFailuresError(WetmapError):
    """More blocks or scenes failed than ``--max-failed`` allows."""


class WetmapWarning(UserWarning):
    """Something was left out or looks wrong; it is also a row in the manifest and a count in the summary."""


class SceneSkippedWarning(WetmapWarning):
    """A scene was not used."""


class ClippedWarning(WetmapWarning):
    """A feature goes beyond what the cube can store, and is clipped there."""


class CoregistrationWarning(WetmapWarning):
    """Scenes lie off the others, and are used as they are."""


class SceneCheckWarning(WetmapWarning):
    """A scene does not look like the others of its season."""


class FewLooksWarning(WetmapWarning):
    """Part of the area has too few clear optical looks."""


class PartialCoverWarning(WetmapWarning):
    """A file of the user's own covers only part of the area."""


class BlockFailedWarning(WetmapWarning):
    """A block could not be made."""


class PaletteWarning(WetmapWarning):
    """Two classes of a map have colours that somebody can hardly tell apart."""


class NoLocksWarning(WetmapWarning):
    """The file system has no locks: nothing stops two processes from doing the same work."""


class ReferenceWarning(WetmapWarning):
    """Reference features or classes were left out, or are thin."""


class TrainingWarning(WetmapWarning):
    """A model is trained without something that it was meant to learn from."""


class SlowTrainingWarning(TrainingWarning):
    """One batch took longer than all the training time that was given."""


class LeakWarning(WetmapWarning):
    """A split that lets training windows overlap test windows: its figures are optimistic."""


class ModelFailedWarning(WetmapWarning):
    """A model of a comparison could not be trained; its row says why."""


class PrecisionWarning(WetmapWarning):
    """A map is computed in bfloat16 although its validation samples speak against it, or could not be asked."""
