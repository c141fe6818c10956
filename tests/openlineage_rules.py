"""What an OpenLineage event must be: as the classes have it that the official client generates from the published JSON
schemas, strictly; and, where OPENLINEAGE_SPEC names the project's folder spec/, as these schemas have it themselves.
"""

from __future__ import annotations

import json
import os
import types
import typing
import uuid
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Union, get_args, get_origin

import attr
from openlineage.client import generated
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

_PARTS = ("facets", "inputFacets", "outputFacets")


def refuse_unpublished(event: dict[str, Any]) -> None:
    """Raise where an event is not as published: something is missing, is of another type, or is unknown."""
    RunState(event["eventType"])
    uuid.UUID(event["run"]["runId"])
    assert event["schemaURL"] == RunEvent._get_schema()
    assert event["producer"]
    assert event.keys() <= {*_fields(RunEvent)}
    for inner, kind in ((event["run"], Run), (event["job"], Job)):
        _refuse_part(inner, kind)
    for inner in event["inputs"]:
        _refuse_part(inner, InputDataset)
    for inner in event["outputs"]:
        _refuse_part(inner, OutputDataset)
    RunEvent(**{key: event[key] for key in ("eventTime", "producer", "run", "job", "inputs", "outputs")})
    if folder := os.environ.get("OPENLINEAGE_SPEC"):
        _refuse_by_schema(event, Path(folder))


def _refuse_part(part: dict[str, Any], kind: type) -> None:
    assert part.keys() <= {*_fields(kind)}, part.keys()
    kind(**part)  # what it requires is there
    for where in _PARTS:
        for name, facet in part.get(where, {}).items():
            assert facet["_producer"]
            made = _classes()[facet["_schemaURL"]]
            _refuse({key: value for key, value in facet.items() if not key.startswith("_")}, made, name)


@cache
def _classes() -> dict[str, type]:
    """The client's facets by the address of their published schema."""
    found: dict[str, type] = {}
    for module in iter_modules(generated.__path__, f"{generated.__name__}."):
        for made in vars(import_module(module.name)).values():
            if isinstance(made, type) and attr.has(made) and "_get_schema" in vars(made):
                found[made._get_schema()] = made  # type: ignore[attr-defined]
    return found


def _fields(made: type) -> dict[str, Any]:
    return {field.name: field for field in attr.fields(made)}


def _refuse(value: Any, kind: Any, at: str) -> None:
    """Whether a value is of the type that the client has for it."""
    if isinstance(kind, type) and attr.has(kind):
        assert isinstance(value, dict), at
        kinds = typing.get_type_hints(kind, {**vars(typing), **vars(import_module(kind.__module__))})
        fields = {name: field for name, field in _fields(kind).items() if not name.startswith("_")}
        assert value.keys() <= fields.keys(), f"{at}: {value.keys() - fields.keys()} unknown"
        needed = {name for name, field in fields.items() if field.default is attr.NOTHING}
        assert needed <= value.keys(), f"{at}: {needed - value.keys()} missing"
        for name, inner in value.items():
            _refuse(inner, kinds[name], f"{at}.{name}")
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        faults = list[Exception]()
        for one in arguments:
            try:
                return _refuse(value, one, at)
            except AssertionError as fault:
                faults.append(fault)
        raise faults[0]
    if origin is list:
        assert isinstance(value, list), at
        for inner in value:
            _refuse(inner, arguments[0], at)
    elif origin is dict:
        assert isinstance(value, dict), at
        for inner in value.values():
            _refuse(inner, arguments[1], at)
    elif kind is not Any:
        assert isinstance(value, kind), f"{at}: {value!r} is no {kind}"
        assert kind is bool or not isinstance(value, bool), at


def _refuse_by_schema(event: dict[str, Any], folder: Path) -> None:
    core, check = _validators(folder)
    check(event, core)
    parts = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    for part in parts:
        for where in _PARTS:
            for facet in part.get(where, {}).values():
                check(facet, facet["_schemaURL"])


@cache
def _validators(folder: Path) -> tuple[str, Any]:
    from jsonschema import Draft202012Validator, FormatChecker
    from referencing import Registry, Resource

    schemas = [json.loads(path.read_text()) for path in [folder / "OpenLineage.json", *folder.glob("facets/*.json")]]
    registry: Any = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in schemas)

    def check(value: Any, address: str) -> None:
        Draft202012Validator({"$ref": address}, registry=registry, format_checker=FormatChecker()).validate(value)

    return schemas[0]["$id"], check
