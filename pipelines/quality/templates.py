"""The views of Data Docs, their templates compiled once a process. By itself each view compiles its own, and each run
of a process again. Great Expectations' configuration names these classes."""

from __future__ import annotations

from types import CodeType
from typing import Any

from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2.bccache import Bucket, BytecodeCache


class _Compiled(BytecodeCache):
    """In memory, by the template's name and text."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code:
            self._code[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


class ResultsView(DefaultJinjaPageView):  # type: ignore[misc]
    """A page of results."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.env.bytecode_cache = _COMPILED


class IndexView(DefaultJinjaIndexPageView):  # type: ignore[misc]
    """The index."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.env.bytecode_cache = _COMPILED
