"""Files and folders that appear whole or not at all: written beside their name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """A folder to keep files in by name, wherever it is; each appears whole or not at all."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes | memoryview) -> None: ...

    def delete(self, name: str) -> None: ...


@dataclass(frozen=True)
class LocalFiles:
    """A folder on disk; what is written is on it, and not only on its way, when the name appears."""

    folder: Path

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*"))

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes | memoryview) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / name)
        except OSError:  # no room for it, say
            partial.unlink(missing_ok=True)
            raise

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which then takes the place of ``folder``."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
