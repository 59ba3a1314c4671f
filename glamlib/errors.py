"""Input that cannot be used: the one exception for it, and values checked against annotated types and ranges."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Annotated, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

_T = TypeVar("_T")


class InputError(ValueError):
    """Raised for bad input of any kind (a file, a value, a name). Its message is one line, complete in itself."""

    def __init__(self, message: str) -> None:
        if message.startswith("Caught InputError in "):  # of a DataLoader: with the whole traceback of its worker
            message = message.rstrip().rpartition("InputError: ")[2]
        super().__init__(message.replace("\n", "\\n"))  # a file's name may have them


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr and exit status 1 where input cannot be used, or at Ctrl-C."""
    try:
        yield
    except (InputError, OSError) as error:
        named = getattr(error, "filename", None)  # not where a disk is full
        sys.exit(f"error: {named}: {error.strerror}" if named else f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def one_of(what: str, value: object, allowed: Iterable[object]) -> InputError:
    """Return the error for a value outside a list: ``what`` is its role, ``allowed`` what is accepted."""
    return InputError(f"unknown {what} {value!r}; allowed: {', '.join(map(str, allowed))}")


def lookup(what: str, name: str, table: Mapping[str, _T]) -> _T:
    """Return the entry of a table; the error of `one_of` for an unknown name."""
    if name not in table:
        raise one_of(what, name, table)
    return table[name]


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``, for ``Annotated[int, Range(1)]``."""

    low: float
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value < math.inf

    def __str__(self) -> str:
        return f"at least {self.low}" if self.high == math.inf else f"from {self.low} to {self.high}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]

_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", NoneType: "null"}
_NAMES[dict] = 'a mapping, in JSON {"name": value}'


def _described(kind: object) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_described(parts[0])} {parts[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_described, parts))
    if origin is tuple:
        return f"a list ({', '.join('...' if part is Ellipsis else _described(part) for part in parts)})"
    return _NAMES.get(kind, kind.__name__)


def _converted(value: object, kind: object) -> object:
    """Return ``value`` as ``kind``; ValueError if it is not one."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _converted(value, parts[0])
        allowed = value in parts[1]
    elif origin is Literal:
        allowed = value in parts and type(value) in map(type, parts)
    elif origin in (Union, UnionType):
        for part in parts:
            with suppress(ValueError):
                return _converted(value, part)
        allowed = False
    elif origin is tuple:
        repeated = parts[-1:] == (Ellipsis,)
        allowed = isinstance(value, list | tuple) and (len(value) > 0 if repeated else len(value) == len(parts))
        if allowed:
            kinds = parts[:1] * len(value) if repeated else parts
            value = tuple(map(_converted, value, kinds))
    else:
        value = float(value) if kind is float and type(value) is int else value
        allowed = type(value) is kind
    if not allowed:
        raise ValueError
    return value


def check(name: str, value: object, kind: object) -> object:
    """Return ``value`` as ``kind``, or raise an `InputError` that says what is allowed.

    An int may stand for a float and a list for a tuple; nothing else is converted.
    """
    try:
        return _converted(value, kind)
    except ValueError:
        hint = " (in YAML write 1.0e-3, not 1e-3)" if "a number" in _described(kind) and isinstance(value, str) else ""
        raise InputError(f"{name}={value!r}: must be {_described(kind)}{hint}") from None


def check_options(role: str, values: dict[str, object], *targets: Callable) -> dict[str, object]:
    """Return ``values`` checked against a dataclass's fields, or keyword-only parameters; InputError for others."""
    options = {
        option.name: option
        for target in targets
        for option in signature(target).parameters.values()
        if is_dataclass(target) or option.kind is option.KEYWORD_ONLY
    }
    for name in values:
        lookup(role, name, options)
    if missing := [name for name in options if options[name].default is Parameter.empty and name not in values]:
        raise InputError(f"missing {role}: {', '.join(missing)}")
    return {name: check(f"{role} {name}", value, options[name].annotation) for name, value in values.items()}


@dataclass(frozen=True)
class Checked:
    """The base of a frozen dataclass whose values are checked against its annotations."""

    role: ClassVar[str] = "option"  # of its values, in errors

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, check(f"{self.role} {item.name}", getattr(self, item.name), item.type))

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Self:
        """Return the checked record; InputError for an unknown or missing name or a bad value."""
        return cls(**check_options(cls.role, values, cls))
