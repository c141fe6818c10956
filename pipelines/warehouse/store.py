"""Files by URI, on local disk or in an object store: the one place that opens them.

What opens a location are the properties of the catalog that it belongs to, as PyIceberg's own file IO understands them:
an endpoint, a region, keys, from [warehouse] or handed out by a REST catalog. They travel with the location to whoever
reads or writes there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from pyarrow.fs import (
    AwsStandardS3RetryStrategy,
    FileInfo,
    FileSelector,
    FileSystem,
    FileType,
    LocalFileSystem,
    copy_files,
)

from pipelines.errors import ConfigError
from pipelines.paths import local_path

if TYPE_CHECKING:
    from pyiceberg.io.pyarrow import PyArrowFileIO

_OF_FILES = ("s3.", "gcs.", "adls.", "hdfs.", "client.")  # of a catalog's properties, what says nothing of a catalog
_OBJECT_STORES = ("s3", "gcs", "abfs")
_COPIES_S = 86_400.0  # how long a copy stays that a killed process left


class Patient(AwsStandardS3RetryStrategy):  # type: ignore[misc]
    """A store that asks for fewer requests is asked again for 8 s, where pyarrow's own three attempts take 4; one that
    says nothing is given up after 35 s, which five attempts would make 48."""

    def __init__(self) -> None:
        super().__init__(max_attempts=4)


@dataclass(frozen=True)
class Store:
    """The file systems that some properties open."""

    properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Store:
        """Those that a catalog or a table has; without its passwords for anything but files."""
        return cls(tuple(sorted((key, str(v)) for key, v in properties.items() if key.startswith(_OF_FILES))))

    def filesystem(self, uri: str) -> tuple[FileSystem, str]:
        """The file system of a location, and the path in it.

        Raises:
            ConfigError: there is none for its scheme.
        """
        if path := local_path(uri):
            return LocalFileSystem(), path
        io = _io(self.properties)
        scheme, netloc, inner = io.parse_location(uri)
        try:
            return io.fs_by_scheme(scheme, netloc), inner
        except ValueError as error:
            raise ConfigError(f"{uri}: {error}") from None

    def read(self, uri: str) -> bytes:
        """A whole file."""
        files, inner = self.filesystem(uri)
        with files.open_input_file(inner) as file:
            content: bytes = file.read()
        return content

    def write(self, uri: str, content: bytes | memoryview) -> None:
        """Make a file appear whole. Object stores do so by themselves; elsewhere it is renamed to where it is seen."""
        files, path = self.filesystem(uri)
        folder, _, name = path.rpartition("/")
        renamed = files.type_name not in _OBJECT_STORES
        first = f"{folder}/.{name}.{uuid.uuid4().hex}" if renamed else path
        try:
            if renamed:
                files.create_dir(folder, recursive=True)
            with files.open_output_stream(first) as out:
                out.write(content)
            if renamed:
                files.move(first, path)
        except OSError as error:  # some do not name the file
            with contextlib.suppress(OSError):
                files.delete_file(first)
            raise OSError(f"{path}: {error}") from error

    def exists(self, uri: str) -> bool:
        files, inner = self.filesystem(uri)
        return bool(files.get_file_info(inner).type != FileType.NotFound)

    def found(self, folder: str, recursive: bool = False) -> list[FileInfo]:
        """What lies in a folder, by path; nothing if there is no such folder."""
        files, inner = self.filesystem(folder)
        found = files.get_file_info(FileSelector(inner, recursive=recursive, allow_not_found=True))
        return sorted(found, key=lambda info: info.path)


@lru_cache(maxsize=64)
def _io(properties: tuple[tuple[str, str], ...]) -> PyArrowFileIO:
    from pyiceberg.io.pyarrow import PyArrowFileIO  # not for local files: it loads pandas, and workers open files

    return PyArrowFileIO(dict(properties))


@dataclass(frozen=True)
class Folder:
    """A folder by its URI, with what opens it: to be given to a worker on any machine."""

    uri: str
    store: Store = Store()

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri}/{name}", self.store)

    @property
    def name(self) -> str:
        return PurePosixPath(self.uri).name

    @property
    def local(self) -> Path | None:
        """Its path, if it is on a disk of this machine."""
        path = local_path(self.uri)
        return Path(path) if path else None

    def names(self) -> list[str]:
        """Of the files in it."""
        return [info.base_name for info in self.store.found(self.uri) if info.type == FileType.File]

    def folders(self) -> list[Folder]:
        return [self / info.base_name for info in self.store.found(self.uri) if info.type == FileType.Directory]

    def sizes(self) -> dict[str, int]:
        """By name of each folder in it, the bytes that lie there; in the order of their names."""
        _, inner = self.store.filesystem(self.uri)
        sizes: dict[str, int] = {}
        for info in self.store.found(self.uri, recursive=True):
            name, *below = PurePosixPath(info.path).relative_to(inner).parts
            if below and info.is_file:
                sizes[name] = sizes.get(name, 0) + info.size
        return sizes

    def newest(self) -> float:
        """When something in it was last written, in seconds; 0 if nothing can tell."""
        times = [info.mtime.timestamp() for info in self.store.found(self.uri, recursive=True) if info.mtime]
        return max(times, default=0.0)

    def read(self, name: str) -> bytes:
        return self.store.read(f"{self.uri}/{name}")

    def write(self, name: str, content: bytes | memoryview) -> None:
        self.store.write(f"{self.uri}/{name}", content)

    def delete(self, name: str) -> None:
        files, inner = self.store.filesystem(f"{self.uri}/{name}")
        files.delete_file(inner)

    def remove(self) -> None:
        """The folder with all that is in it, if it is there."""
        files, inner = self.store.filesystem(self.uri)
        with contextlib.suppress(FileNotFoundError):
            files.delete_dir(inner)

    @contextmanager
    def filling(self) -> Iterator[Path]:
        """A folder on this machine's disk; what is written there is in this one afterwards."""
        if self.local:
            self.local.mkdir(parents=True, exist_ok=True)
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="m2m-") as folder:
            yield Path(folder)
            if os.listdir(folder):
                files, inner = self.store.filesystem(self.uri)
                copy_files(folder, inner, LocalFileSystem(), files)

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """The folder on this machine's disk: itself, or a copy of its name below $TMPDIR. The machine's processes share
        it, and the last to leave takes it away; one that a killed process left is taken up, or removed after a day."""
        if self.local:
            yield self.local
            return
        files, inner = self.store.filesystem(self.uri)
        listing = [(i.path, i.size, i.mtime_ns) for i in self.store.found(self.uri, recursive=True) if i.is_file]
        digest = hashlib.sha256(repr((self.uri, listing)).encode()).hexdigest()[:20]
        copy = _copies() / digest
        held = copy.with_suffix(".lock")
        while True:
            lock = _locked(held, fcntl.LOCK_SH)
            if copy.exists():
                break
            lock.close()
            with _locked(held, fcntl.LOCK_EX):  # another process may come and go in between
                if not copy.exists():
                    _fetch(files, inner, copy / self.name)
        try:
            yield copy / self.name
        finally:
            lock.close()
            _remove_unused(held)


def _fetch(files: FileSystem, inner: str, place: Path) -> None:
    """A copy of a folder, which is there whole or not at all."""
    copy, partial = place.parent, place.parent.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / place.name).mkdir(parents=True)
    try:
        copy_files(inner, str(partial / place.name), files, LocalFileSystem())
    except BaseException:  # the disk is full, say
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(copy)


def _copies() -> Path:
    """Where this user's copies are.

    Raises:
        ConfigError: another user has made the folder.
    """
    copies = Path(tempfile.gettempdir()) / f"m2m-copies-{os.getuid()}"
    copies.mkdir(mode=0o700, exist_ok=True)
    if copies.lstat().st_uid != os.getuid():
        raise ConfigError(f"{copies} is another user's, who could change what lies there; remove it or set TMPDIR")
    _remove_old(copies)
    return copies


@cache
def _remove_old(copies: Path) -> None:
    """Once a process: what killed ones left long ago."""
    for held in copies.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            if held.stat().st_mtime < time.time() - _COPIES_S:
                _remove_unused(held)


def _remove_unused(held: Path) -> None:
    """Remove a copy and its lock, unless a process has it at hand."""
    with contextlib.suppress(BlockingIOError), _locked(held, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for part in (held.with_suffix(""), held.with_suffix(".partial")):
            shutil.rmtree(part, ignore_errors=True)
        held.unlink()


def _locked(file: Path, how: int) -> IO[str]:
    """A lock file, held until it is closed; who has waited for one that was removed meanwhile takes the new one."""
    while True:
        lock = open(file, "a")  # noqa: SIM115 - whoever gets it closes it
        try:
            fcntl.flock(lock, how)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                    return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


@dataclass(frozen=True)
class Packed:
    """The files of a small folder as a value, which travels to workers with their task: a model needs no path there,
    no registry and no password for one."""

    digest: str
    files: Mapping[str, bytes] = field(compare=False, repr=False)

    @classmethod
    def of(cls, folder: Path) -> Packed:
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return cls(digest.hexdigest(), files)

    @contextmanager
    def unpacked(self) -> Iterator[Path]:
        """The folder again, for as long as it is read."""
        with tempfile.TemporaryDirectory(prefix="m2m-") as name:
            for path, content in self.files.items():
                file = Path(name) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            yield Path(name)
