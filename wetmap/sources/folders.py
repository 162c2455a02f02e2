"""Files of a folder and of the zips in it, never leaving the folder: links out of it and odd names are refused."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wetmap.errors import MissingSourceError

#: Folders of a SAFE product that hold nothing that is read here.
UNREAD = {"aux_data", "datastrip", "html", "rep_info", "qi_data", "r60m"}
#: How JPEG 2000 files, their bare codestreams, and TIFF files begin: others (a VRT, say) may point anywhere.
IMAGES = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class Store:
    """A folder or a zip, and the files in it."""

    path: Path
    """The folder or the zip."""
    label: str
    """Path of the zip inside the user's folder, with ``/``; empty for the folder itself."""
    names: tuple[str, ...]
    """Paths of its files, with ``/``, sorted."""

    def href(self, name: str) -> str:
        """What GDAL opens; a member of a zip is read in place."""
        return f"/vsizip/{{{self.path}}}/{name}" if self.label else str(self.path / name)

    def shown(self, name: str) -> str:
        """Path inside the user's folder, for people."""
        return f"{self.label}/{name}" if self.label else name

    def read(self, name: str, most: int) -> bytes:
        """The first ``most`` bytes of a file, whatever a zip says of its size.

        Raises:
            OSError: It cannot be read.
        """
        if not self.label:
            with (self.path / name).open("rb") as file:
                return file.read(most)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as member:
                return member.read(most)
        except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
            raise OSError(f"{self.label} is damaged or of an odd kind ({error})") from None

    def is_image(self, name: str) -> bool:
        """Whether a file begins as JPEG 2000 and TIFF files do.

        Raises:
            OSError: It cannot be read.
        """
        return self.read(name, 12).startswith(IMAGES)


def stores_of(folder: Path) -> tuple[list[Store], list[tuple[str, str]]]:
    """Every file of a folder and of the zips in it, by name alone.

    Args:
        folder: The folder; it may itself be a link.

    Returns:
        The folder and its zips; and what was left out, with the reason (path inside the folder, end of a sentence).

    Raises:
        MissingSourceError: The folder does not exist.
    """
    if not folder.is_dir():
        raise MissingSourceError(f"The folder {folder} does not exist.", do="Mend `folder:` of the source.")
    names: list[str] = []
    left_out: list[tuple[str, str]] = []
    for name, reason in _walk(folder):
        if reason:
            left_out.append((name, reason))
        else:
            names.append(name)
    zips = [name for name in names if name.lower().endswith(".zip")]
    stores = [Store(folder, "", tuple(name for name in names if name not in set(zips)))]
    for name in zips:
        found = _zip(folder / name, name)
        if isinstance(found, Store):
            stores.append(found)
        else:
            left_out.append((name, found))
    return stores, left_out


def stamps_of(folder: Path) -> dict[str, str]:
    """What tells a changed folder from the same.

    Returns:
        By product or file the number of its files, their size, bytes, and the beginning of a digest of their names,
        sizes and modification times.
    """
    rows: dict[str, list[tuple[str, int, int]]] = {}
    for name, reason in _walk(folder) if folder.is_dir() else ():
        if not reason:
            stat = (folder / name).stat()
            rows.setdefault(_product(name), []).append((name, stat.st_size, stat.st_mtime_ns))
    return {
        product: f"{len(files)} files, {sum(size for _, size, _ in files)} bytes, "
        f"{hashlib.sha256(repr(files).encode()).hexdigest()[:12]}"
        for product, files in rows.items()
    }


def _product(name: str) -> str:
    """The SAFE folder that a file is in, or the file itself."""
    return next((parent for parent in _parents(name) if parent.lower().endswith(".safe")), name)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Every file below a folder: its path with ``/``, and why it is left out (empty: it is not); sorted."""
    inside = root.resolve()
    todo = [root]
    found: list[tuple[str, str]] = []
    while todo:
        folder = todo.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            found.append((folder.relative_to(root).as_posix(), f"it cannot be listed ({error.strerror})"))
            continue
        for entry in entries:
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not _leads_inside(path, inside):
                found.append((name, "it is a link that leads out of the folder"))
            elif entry.is_dir():
                if not entry.is_symlink() and not _unread(name):  # what a link inside leads to is found in its place
                    todo.append(path)
            elif entry.is_file():
                found.append((name, ""))
    return iter(sorted(found))


def _leads_inside(path: Path, inside: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(inside)
    except (OSError, RuntimeError):  # it leads nowhere, or to itself
        return False


def _unread(name: str) -> bool:
    *parents, last = name.lower().split("/")
    return last in UNREAD and any(parent.endswith(".safe") for parent in parents)


def _zip(path: Path, label: str) -> Store | str:
    """A zip by its names, or why it is left out."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        return f"it is no whole zip ({error})"
    names = [member.filename for member in members]
    odd = next((name for name in names if _leaves(name)), None)
    if odd is not None:
        return f"it has a member named {odd!r}, which leads out of it"
    if len(set(names)) < len(names):
        return "it has two members of one name"
    if any(member.flag_bits & 1 for member in members):
        return "it is encrypted"
    kept = [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
    return Store(path, label, tuple(sorted(name for name in kept if not any(map(_unread, _parents(name))))))


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: at + 1]) for at in range(len(parts))]


def _leaves(name: str) -> bool:
    return name.startswith("/") or "\\" in name or ":" in name.split("/", maxsplit=1)[0] or ".." in name.split("/")
