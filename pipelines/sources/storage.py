"""Where raw files lie: the local disk through Python, any other address through the Hadoop file system that Spark reads
it with. So an address that is found here is one that Spark can open, with the same connector and credentials.
"""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipelines.errors import ConfigError, DataError

# What Spark needs beside itself for an address, as the value of spark.jars.packages.
CONNECTORS = {
    "s3a": "org.apache.hadoop:hadoop-aws",
    "abfs": "org.apache.hadoop:hadoop-azure",
    "abfss": "org.apache.hadoop:hadoop-azure",
    "gs": "com.google.cloud.bigdataoss:gcs-connector",
}


@dataclass(frozen=True)
class Entry:
    """A file or folder; ``path`` is the address that Spark takes, nothing in it escaped. ``modified``: when it was
    written, in seconds since 1970."""

    path: str
    folder: bool
    size: int
    modified: float = 0.0

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]


class Storage(Protocol):
    """What is asked of a file system."""

    def entry(self, path: str) -> Entry | None:
        """The file or folder of that path, if there is one."""

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder, by name; nothing if there is no such folder."""

    def open(self, path: str) -> BinaryIO:
        """A file to read, from any place in it."""

    def real(self, path: str) -> str:
        """The path of what a link leads to."""


def scheme_of(path: str) -> str:
    """``s3a`` of ``s3a://bucket/key``; empty for a path on this machine."""
    scheme = path.partition(":")[0] if ":/" in path else ""
    return "" if scheme == "file" or not scheme.replace("+", "").isalnum() else scheme


def address(path: str) -> str:
    return path if scheme_of(path) else f"file://{path}"


def path_of(uri: str) -> str:
    """The path of a file that Spark names."""
    return unquote(re.sub(r"^file:/+", "/", uri))


def storage_of(spark: SparkSession, path: str) -> Storage:
    """The storage of an address.

    Raises:
        ConfigError: Spark has no connector for it.
    """
    return Hadoop(spark, path) if scheme_of(path) else Local()


class Local:
    """The disk of this machine, and what is mounted there."""

    def entry(self, path: str) -> Entry | None:
        try:
            found = os.stat(path)
            path.encode()  # Java takes no name that is none
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                raise _denied(path, "it is neither a file nor a folder")  # a pipe would be waited for
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _denied(path, error.strerror) from None
        except UnicodeEncodeError:
            raise _denied(path, "its name is not UTF-8; rename it") from None
        return Entry(path, stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime)

    def entries(self, folder: str) -> list[Entry]:
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _denied(folder, error.strerror) from None
        found = [self.entry(os.path.join(folder, name)) for name in names]
        return [entry for entry in found if entry]  # a link that leads nowhere is no file

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def open(self, path: str) -> BinaryIO:
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise _denied(path, error.strerror) from None


class Hadoop:
    """Any file system that Spark's Hadoop knows: s3a, abfs, gs, hdfs, ..."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        scheme = scheme_of(path)
        self._jvm: Any = spark._jvm
        try:
            self._files = self._path(path).getFileSystem(spark._jsc.hadoopConfiguration())
        except Py4JJavaError as error:
            words = _words(error)
            if "No FileSystem for scheme" not in words and "ClassNotFoundException" not in words:
                raise
            package = CONNECTORS.get(scheme)
            version = self._jvm.org.apache.hadoop.util.VersionInfo.getVersion()
            known = f"{package}:{version if 'hadoop:' in package else 'hadoop3-latest'}" if package else ""
            hint = (
                f'add its package, [spark.conf] "spark.jars.packages" = "{known}"'
                if package
                else "write s3a://, and add Hadoop's connector for it"
                if scheme in ("s3", "s3n")
                else "copy the files to a storage that it has a connector for"
            )
            raise ConfigError(f"{path}: Spark has no connector for {scheme}://; {hint}") from None

    def entry(self, path: str) -> Entry | None:
        try:
            return _entry(self._files.getFileStatus(self._path(path)))
        except Py4JJavaError as error:
            _absent(path, error)
            return None

    def entries(self, folder: str) -> list[Entry]:
        try:
            found = [_entry(status) for status in self._files.listStatus(self._path(folder))]
        except Py4JJavaError as error:
            _absent(folder, error)
            return []
        return sorted(found, key=lambda entry: entry.path)

    def real(self, path: str) -> str:
        return path

    def open(self, path: str) -> BinaryIO:
        entry = self.entry(path)
        try:
            stream = self._files.open(self._path(path))
        except Py4JJavaError as error:
            _absent(path, error)
            raise _denied(path, "there is no such file any more") from None
        reader = self._jvm.org.apache.commons.io.IOUtils.toByteArray
        return io.BufferedReader(_HadoopFile(stream, reader, entry.size if entry else 0), 1 << 16)

    def _path(self, path: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(path)


class _HadoopFile(io.RawIOBase):
    """A Hadoop stream as a Python file."""

    def __init__(self, stream: Any, read: Any, size: int) -> None:
        self._stream, self._read, self._size, self._at = stream, read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if count:
            self._stream.seek(self._at)
            buffer[:count] = self._read(self._stream, count)
            self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _entry(status: Any) -> Entry:
    modified = status.getModificationTime() / 1000
    return Entry(status.getPath().toString(), status.isDirectory(), status.getLen(), modified)


def _absent(path: str, error: Py4JJavaError) -> None:
    """Pass over "not found"; a file that may not be read is the data's fault, anything else the network's."""
    name = error.java_exception.getClass().getName()
    if name.endswith(("AccessControlException", "AccessDeniedException")):
        raise _denied(path, _words(error)) from None
    if not name.endswith("FileNotFoundException"):
        raise error


def _denied(path: str, why: str | None) -> DataError:
    return DataError(f"{path}: cannot be read: {why}")


def _words(error: Py4JJavaError) -> str:
    return f"{error.java_exception.getClass().getName()}: {error.java_exception.getMessage()}"
