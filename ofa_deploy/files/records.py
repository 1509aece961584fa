"""Frozen dataclasses as JSON values, and back.

A field is written under its own name, in the order of the fields. `stored` says where that differs. Values may be
numbers, texts, booleans, what a class reads by `parse` and writes by `str` (such as architectures), tuples and mappings
of all these, and other dataclasses, which may have a `to_json` and a `from_json` of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def stored(*, key: str | None = None, optional: bool = False) -> Any:
    """A field that is written in a way of its own.

    Args:
        key: its name in JSON; None takes the field's own name.
        optional: the field begins as None, and None is not written at all.
    """
    metadata = {"key": key, "optional": optional}
    return dataclasses.field(default=None, metadata=metadata) if optional else dataclasses.field(metadata=metadata)


def to_json(value: Any) -> Any:
    """A dataclass, or a value of a field, as JSON values."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(type(value), "parse"):
        return str(value)
    if dataclasses.is_dataclass(value):
        return fields_to_json(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(inside) for key, inside in value.items()}
    return [to_json(inside) for inside in value] if isinstance(value, (tuple, list)) else value


def fields_to_json(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values, field by field, even if it has a `to_json` of its own."""
    pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {_key(f): to_json(inside) for f, inside in pairs if not (inside is None and f.metadata.get("optional"))}


def keys(kind: type) -> list[str]:
    """Names in JSON of a dataclass's fields."""
    return [_key(field) for field in dataclasses.fields(kind)]


def from_json(kind: type[T], values: Any) -> T:
    """The dataclass that `to_json` wrote; keys that are none of its fields are left out.

    Args:
        kind: the dataclass.
        values: JSON values.

    Raises:
        ValueError, OverflowError: a key is missing, or its value is not of the field's type.
        OfaDeployError: a value is refused by the class that it is of.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{_shown(values)} is no {kind.__name__}")
    types, read = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        key = _key(field)
        if key in values:
            read[field.name] = _value(types[field.name], values[key], key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{key!r} of a {kind.__name__} is missing")
    return kind(**read)


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("key") or field.name


def _shown(value: Any) -> str:
    """A value of a damaged file, as short as a message needs it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _value(kind: Any, value: Any, key: str) -> Any:
    """A field's value of the type that its annotation names."""
    outer, inner = get_origin(kind), get_args(kind)
    if kind is Any or (value is None and NoneType in inner):
        return value
    if outer is not None and issubclass(outer, tuple):
        return tuple(_value(inner[0], inside, key) for inside in _of(list, value, key))
    if outer is not None and issubclass(outer, Mapping):
        return {name: _value(inner[1], inside, key) for name, inside in _of(dict, value, key).items()}
    kind = next((each for each in inner if each is not NoneType), kind)
    if reads := getattr(kind, "from_json", None):
        return reads(value)
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "parse"):
        return from_json(kind, value)  # type: ignore[arg-type]
    return _SCALARS[kind](value, key) if kind in _SCALARS else kind.parse(_of(str, value, key))


def _of(kind: type[T], value: Any, key: str) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{key!r} is {_shown(value)}, not a {kind.__name__}")
    return value


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key!r} is {_shown(value)}, not a number")
    return float(value)


def _whole(value: Any, key: str) -> int:
    if isinstance(value, bool):
        raise ValueError(f"{key!r} is {value}, not a whole number")
    return _of(int, value, key)


_SCALARS: dict[type, Callable[[Any, str], Any]] = {
    float: _number,
    int: _whole,
    bool: lambda value, key: _of(bool, value, key),
    str: lambda value, key: _of(str, value, key),
}
