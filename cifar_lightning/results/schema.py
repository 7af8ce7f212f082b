"""From what a JSON file holds to dataclasses, the type of every value looked at."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def build(kind: type[T], content: Any) -> T:
    """Makes an object of a dataclass, and of those it is made of.

    Args:
        kind: The dataclass. Its fields are plain values, lists and dictionaries of such, other dataclasses, or one of
            these and None.
        content: As JSON gives it.

    Raises:
        ValueError: Something is missing, unknown, or of another type; the message names it.
    """
    made: T = _object(kind, content, "")
    return made


def _object(kind: Any, content: Any, where: str) -> Any:
    _expect(isinstance(content, Mapping), where, "an object")
    known = {each.name: each.default is MISSING and each.default_factory is MISSING for each in fields(kind)}
    for name in content:
        _expect(name in known, where, f"nothing of the name {name}")
    for name, needed in known.items():
        _expect(name in content or not needed, where, name)
    kinds = get_type_hints(kind)
    return kind(**{name: _value(kinds[name], value, f"{where}.{name}") for name, value in content.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value, where)
    if origin is Literal:
        _expect(value in inner, where, " or ".join(inner))
        return value
    if origin is list:
        _expect(isinstance(value, list), where, "a list")
        return [_value(inner[0], each, f"{where}[{i}]") for i, each in enumerate(value)]
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object")
        return {name: _value(inner[1], each, f"{where}.{name}") for name, each in value.items()}
    if inner:  # something or None
        return None if value is None else _value(inner[0], value, where)
    _expect(type(value) is kind or (kind is float and type(value) is int), where, f"a value of type {kind.__name__}")
    return value


def _expect(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{where.removeprefix('.') or 'all of it'}: expected {what}")
