"""Configs: frozen, keyword-only dataclasses that say *what* is wanted, and the field types that name other things.

A config is checked when it is made and refuses unknown fields. Some string types carry identity into a fingerprint:
`Input` stands for an artifact, `File` for a file or directory of the user's, identified by its content, and `HubModel` and
`HubData` for a repository at a commit of a model hub.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs
from tyro.conf import Suppress
from tyro.constructors import PrimitiveConstructorSpec

T = TypeVar("T")


class PlaypenError(Exception):
    """Something the user can mend: printed as one line, without a traceback."""


class _InputMarker:
    """Tags a string that names an artifact."""


class _FileMarker:
    """Tags a string that names a file or directory on disk."""


class _HubModelMarker:
    """Tags a string that names a model on the hub."""


class _HubDataMarker:
    """Tags a string that names a data set on the hub."""


def _called(metavar: str) -> PrimitiveConstructorSpec[str]:
    """Let --help call a text by what it stands for."""
    return PrimitiveConstructorSpec(1, metavar, lambda args: args[0], lambda value: isinstance(value, str), lambda value: [value])


Input = Annotated[str, _InputMarker(), _called("ARTIFACT")]
"""An earlier entry of the plan or, if it holds a slash, the path of an artifact."""

File = Annotated[str, _FileMarker(), _called("PATH")]
"""A file or directory of the user's; its content, not its path, enters the fingerprint."""

HubModel = Annotated[str, _HubModelMarker(), _called("OWNER/NAME")]
"""A model on the hub, `owner/name` or `owner/name@revision`; pinned to a commit when a plan is made."""

HubData = Annotated[str, _HubDataMarker(), _called("OWNER/NAME")]
"""A data set on the hub, pinned like a model."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass, checked when made, that refuses unknown fields.

    A field `kind` tells the configs of a union apart in YAML; on the command line the sub-command does, so it is no flag.
    """
    if "kind" in cls.__annotations__:
        cls.__annotations__["kind"] = Suppress[cls.__annotations__["kind"]]
    settings = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
    return dataclass(frozen=True, kw_only=True, config=settings)(cls)  # type: ignore[return-value]


def make_config(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a config from plain data; a mistake becomes one line that says where, what was found and what is known."""
    try:
        return cls(**values)
    except ValidationError as error:
        raise PlaypenError(f"{where}: {explain(cls, error)}") from None


def explain(cls: type, error: ValidationError) -> str:
    """Return a failed check in one line."""
    return "; ".join(_explain(cls, item) for item in error.errors())


def _explain(cls: type, item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "unexpected_keyword_argument":
        known = [f.name for f in fields(_config_at(cls, item["loc"][:-1])) if f.name != "kind"]
        return f"unknown field '{place}'{did_you_mean(str(item['loc'][-1]), known)}"
    if item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"field '{place}' is missing"
    found = "" if isinstance(item["input"], dict | ArgsKwargs) or is_dataclass(item["input"]) else f", found {item['input']!r}"
    what = f"field '{place}': " if place else ""
    return f"{what}{item['msg'].removeprefix('Value error, ')}{found}"


def _config_at(hint: Any, place: tuple[str | int, ...]) -> Any:
    """Return the config class at a place of an error: a field's name, an item's number or key, or the kind of a union's member."""
    if place and is_dataclass(hint) and place[0] in (hints := get_type_hints(hint, include_extras=True)):
        return _config_at(hints[str(place[0])], place[1:])
    found = list(_configs_in(hint))
    kinds = [c for c in found if place and getattr(c, "kind", None) == place[0]]
    return _config_at((kinds or found)[0], place[1:]) if place else found[0]


def _configs_in(hint: Any) -> Iterator[type]:
    if is_dataclass(hint):
        yield hint  # type: ignore[misc]
    for part in get_args(hint):
        yield from _configs_in(part)


def did_you_mean(word: str, known: list[str]) -> str:
    """Return a hint that names the nearest known words, or all of them when none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=3)
    if not known:
        return "; there is none"
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(sorted(known))}"


def _is_marked(hint: Any, marker: type) -> bool:
    return any(isinstance(note, marker) for note in getattr(hint, "__metadata__", ()))


def _walk(value: Any, hint: Any, marker: type, visit: Callable[[str], Any]) -> Any:
    """Rebuild `value` with every string whose type carries `marker` replaced by `visit(string)`."""
    if isinstance(value, str):
        options = (hint, *get_args(hint))
        return visit(value) if any(_is_marked(option, marker) for option in options) else value
    if is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value), include_extras=True)
        return replace(value, **{f.name: _walk(getattr(value, f.name), hints[f.name], marker, visit) for f in fields(value)})
    if isinstance(value, tuple | list):
        return type(value)(_walk(item, _element(hint), marker, visit) for item in value)
    if isinstance(value, dict):
        return {key: _walk(item, _element(hint), marker, visit) for key, item in value.items()}
    return value


def _element(hint: Any) -> Any:
    """Return the type of the elements of a tuple, list or dict type."""
    found = [arg for arg in get_args(hint) if arg is not Ellipsis]
    return next((arg for arg in reversed(found) if get_args(arg)), found[-1] if found else Any)


def map_inputs(cfg: T, visit: Callable[[str], str]) -> T:
    """Return `cfg` with every `Input`, however deeply nested, replaced by `visit(input)`."""
    return _walk(cfg, type(cfg), _InputMarker, visit)


def map_files(cfg: T, visit: Callable[[str], str]) -> T:
    """Return `cfg` with every `File`, however deeply nested, replaced by `visit(file)`."""
    return _walk(cfg, type(cfg), _FileMarker, visit)


def pin_hub(cfg: T, pin: Callable[[str, str], str]) -> T:
    """Return `cfg` with every hub reference replaced by `pin(reference, "model" or "dataset")`."""
    models = _walk(cfg, type(cfg), _HubModelMarker, lambda value: pin(value, "model"))
    return _walk(models, type(cfg), _HubDataMarker, lambda value: pin(value, "dataset"))


def inputs_of(cfg: Any) -> list[str]:
    """Return every `Input` of `cfg`, in the order of its fields."""
    found: list[str] = []
    map_inputs(cfg, lambda value: (found.append(value), value)[1])
    return found


def to_plain(value: Any) -> Any:
    """Turn a config into what JSON can hold; refuse what has no stable identity, with its type and the remedy."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise PlaypenError(
            f"a config holds {value} of type float, which JSON cannot write and NaN not even compare, so it has no identity; "
            "give a finite number or leave the field out"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise PlaypenError(
        f"a config holds {value!r} of type {type(value).__name__}, whose identity may differ from run to run; "
        "give plain data (numbers, strings, lists, mappings) or a config"
    )


def leaves(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every leaf of plain data."""
    if isinstance(plain, dict) and plain:
        for key, item in plain.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, plain
