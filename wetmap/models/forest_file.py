"""A forest as bytes: a skops archive, checked on the way in and canonical on the way out.

skops names its nodes by the memory address of the object and stamps its files with the time. Here nodes are numbered in
order of appearance, and leaves (numbers, texts, types, arrays) by their content: the bytes depend on the forest alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from tokenize import TokenError
from typing import Any

import numpy as np
import skops.io

from wetmap.errors import BundleError
from wetmap.models.pixels import trees_are_closed

ADVICE = "Train the model again, or take an undamaged copy of the bundle."

#: What an archive may hold beyond skops' own list of harmless types. Tree is not on that list because a crafted one can
#: point outside itself; ``check_tree`` looks at that.
TRUSTED = ["sklearn.tree._tree.Tree"]

#: All types a forest is made of. skops would trust many more; these are enough.
NEEDED = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.str",
        "builtins.tuple",
        "numpy.ndarray",
        "numpy.int64",
        "numpy.float64",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._tree.Tree",
    }
)

#: What reading a damaged archive can end in; RuntimeError is zipfile's for a flag or version it cannot follow.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    MemoryError,
    IndexError,
    SyntaxError,
    TokenError,
    struct.error,
)

#: How many times larger than the file its contents may be, and below what size nobody asks, bytes. The nodes of real
#: forests shrink to a fifth.
MOST_RATIO, SMALL_BYTES = 50, 2**26

#: The first moment a zip file can tell, written as the time of every member.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def dumps(content: dict[str, Any]) -> bytes:
    """Write a dictionary with a fitted forest as canonical bytes."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(content))) as archive:
        schema = json.loads(archive.read("schema.json"))
        numbering = _Numbering(archive)
        schema = numbering.renumbered(schema)
    members = {**numbering.files, "schema.json": json.dumps(schema, sort_keys=True, separators=(",", ":")).encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name, _NO_TIME)
            member.create_system = 3  # otherwise the operating system's own number
            archive.writestr(member, data, zipfile.ZIP_DEFLATED, 6)
    return buffer.getvalue()


def loads(data: bytes) -> dict[str, Any]:
    """Read what ``dumps`` wrote.

    Raises:
        BundleError: Not a skops archive, or one that holds a type a forest has no need of.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _refuse_bomb(archive, len(data))
            foreign = _types(json.loads(archive.read("schema.json"))) - NEEDED
        if not foreign:
            foreign = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
        if not foreign:
            content = skops.io.loads(data, trusted=TRUSTED)
    except _DAMAGED as error:
        raise BundleError(f"The forest cannot be read ({type(error).__name__}: {error}).", do=ADVICE) from error
    if foreign:
        raise BundleError(
            f"The forest's file holds {', '.join(sorted(foreign))}, which a forest has no need of.",
            do="Do not use this file; take the bundle from a source you trust.",
        )
    if not isinstance(content, dict):
        raise BundleError(f"The forest's file holds a {type(content).__name__}.", do=ADVICE)
    return content


def check_tree(tree: Any, bands: int, classes: int) -> None:
    """Refuse a tree that points outside itself: scikit-learn follows its indices without looking.

    Args:
        tree: scikit-learn's node storage.
        bands: Number of bands that a node may ask for.
        classes: Number of classes in a node's counts.

    Raises:
        BundleError: An index is out of range, or a child does not come after its parent.
    """
    fits = (
        tree.node_count > 0
        and tree.value.shape == (tree.node_count, 1, classes)
        and trees_are_closed(
            *(np.asarray(part) for part in (tree.children_left, tree.children_right, tree.feature)),
            own=np.arange(tree.node_count),
            end=np.full(tree.node_count, tree.node_count),
            bands=bands,
        )
    )
    if not fits:
        raise BundleError("A tree of the forest points outside itself.", do=ADVICE)


def _refuse_bomb(archive: zipfile.ZipFile, size: int) -> None:
    """Contents that would fill the memory, by what the archive says of them; no more than that is ever unpacked."""
    total = sum(member.file_size for member in archive.infolist())
    if total > max(SMALL_BYTES, MOST_RATIO * size):
        raise BundleError(
            f"The forest's file of {size / 1e6:.1f} MB would become {total / 1e6:.0f} MB, {total / size:.0f} times as "
            "much.",
            do="Do not use this file; take the bundle from a source you trust.",
        )


class _Numbering:
    """Numbers in order of appearance: one per content for leaves, one per node for everything else."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.numbers: dict[str, int] = {}
        self.files: dict[str, bytes] = {}
        self.last = 0

    def renumbered(self, node: Any) -> Any:
        """The same schema with its numbers and file names replaced."""
        if isinstance(node, list):
            return [self.renumbered(part) for part in node]
        if not isinstance(node, dict):
            return node
        # sorted: attributes come back from the file in the order in which they were written. All keys are text, so that
        # skops' parallel list of key types does not mind.
        known = {key: self.renumbered(node[key]) for key in sorted(node) if key not in ("__id__", "file")}
        if "file" in node:
            data = _canonical_array(self.archive.read(node["file"]))
            number = self._number(f"{json.dumps(known, sort_keys=True)} {hashlib.sha256(data).hexdigest()}")
            known["file"] = f"{number}.npy"
            self.files[known["file"]] = data
        elif "__id__" in node:
            leaf = node.get("__loader__") in ("JsonNode", "TypeNode")
            number = self._number(json.dumps(known, sort_keys=True) if leaf else None)
        if "__id__" in node:
            known["__id__"] = number
        return known

    def _number(self, content: str | None) -> int:
        if content is not None and content in self.numbers:
            return self.numbers[content]
        self.last += 1
        if content is not None:
            self.numbers[content] = self.last
        return self.last


def _canonical_array(data: bytes) -> bytes:
    """The same npy file with the gaps between a record's fields, which hold whatever the memory held, set to 0."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names is None:
        return data
    # over zeros: numpy leaves the gaps alone when it assigns to a field, and copies them or not as it likes otherwise
    clean = np.frombuffer(bytearray(array.nbytes), array.dtype).reshape(array.shape)
    for name in array.dtype.names:
        clean[name] = array[name]
    buffer = io.BytesIO()
    np.save(buffer, clean, allow_pickle=False)
    return buffer.getvalue()


def _types(node: Any) -> set[str]:
    """Qualified names of all types a schema mentions."""
    if isinstance(node, list):
        return set().union(*(_types(part) for part in node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = set().union(*(_types(part) for part in node.values())) if node else set()
    if isinstance(node.get("__module__"), str) and isinstance(node.get("__class__"), str):
        found.add(f"{node['__module__']}.{node['__class__']}")
    return found
