"""Types of a training config: every key and value held against the class or table it is for."""

import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from mlip.errors import suggest
from mlip.locate import locate
from mlip.models.build import ALLOWED

_Natural: Any = Annotated[int, Field(ge=0), "a whole number from 0"]
_Positive: Any = Annotated[int, Field(ge=1), "a whole number from 1"]
_Epochs: Any = Annotated[int, Field(ge=1), "epochs from 1"]
_Minutes: Any = Annotated[float, Field(ge=0), "minutes from 0"]
_Fraction = Annotated[float, Field(ge=0, lt=1), "a number from 0 (off) to below 1"]
_References = (
    Literal["auto", "fit", "isolated", "foundation"]
    | Annotated[
        Mapping[str, float | str | None],
        "a mapping such as {Li: -0.29} in eV, or {isolated: FILE, units: ase}",
    ]
)

TOP: dict[str, Any] = {
    "output": str,
    "resume": Literal["auto"] | None,
    "start": str | None,
    "start_head": str | None,
    "dry_run": bool,
    "seed": _Natural,
    "threads": _Positive | None,
    "accelerate": Literal["compile", "cuequivariance", "openequivariance"] | None,
    "matmul": Literal["highest", "high", "medium"],
    "energy_references": _References,
    "ema_decay": _Fraction,
    "monitor": str,
    "save_minutes": _Minutes | None,
    "patience": _Epochs | None,
}
"""Key of ``configs/train.yaml`` -> its type; the words of a type are those of messages."""
GROUPS = ("model", "data", "loss", "stages", "optimizer", "schedule", "trainer", "logger")
"""Groups of ``configs/train.yaml``, each of which is a node of the config."""
_TABLES: dict[str, dict[str, Any]] = {
    "model": {
        "elements": list[str] | None,
        "precision": Literal["float32", "float64"],
        "neutral": bool,
        "backbone": Any,
        "heads": Mapping[str, Any],
        "terms": Mapping[str, Any] | None,
    },
    "data": {
        "batch_size": _Positive,
        "batch": Mapping[str, int | None] | None,
        "workers": _Natural,
    },
    "trainer": {
        "devices": _Positive | Literal["auto"],
        "num_nodes": _Positive,
        "accumulate_grad_batches": _Positive,
    },
}
_OPEN = ("data", "trainer")  # whose other keys their class knows
_GIVEN = {"model.heads": ("elements", "channels", "irreps", "r_max"), "model": ("elements",)}
"""What parts of the model are told when it is built."""
_OF_HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


def type_errors(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each unknown key, missing value and value of a wrong type.

    Args:
        content: The config as plain containers, interpolations filled in.
    """
    top = {key: value for key, value in content.items() if key not in GROUPS}
    found = list(_table(top, TOP, "", also=GROUPS))
    for group in GROUPS:
        node = content.get(group)
        if group in _TABLES:
            found += _table(node or {}, _TABLES[group], f"{group}.", is_open=group in _OPEN)
        found += _node(node, group)
    return found


def _table(
    node: Mapping[str, Any],
    types_of: Mapping[str, Any],
    prefix: str,
    *,
    also: tuple[str, ...] = (),
    is_open: bool = False,
) -> Iterator[str]:
    """Hold the keys of one node against a table."""
    for key, value in node.items():
        if key in types_of:
            yield from type_error(f"{prefix}{key}", value, types_of[key])
        elif not is_open:
            yield f"{prefix}{key} is unknown{suggest(str(key), [*types_of, *also])}"


def _node(node: Any, field: str) -> Iterator[str]:
    """Hold every ``_target_`` below a node against its signature."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _node(item, f"{field}[{index}]")
    elif isinstance(node, dict):
        if "_target_" in node:
            yield from _call(node, field)
        for key, value in node.items():
            yield from _node(value, f"{field}.{key}")


def _call(node: Mapping[str, Any], field: str) -> Iterator[str]:
    try:
        target = _find(str(node["_target_"]), field)
    except ValueError as error:
        yield f"{field}: {error}"
        return
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in node.items():
        if key in _OF_HYDRA:
            continue
        if key not in parameters:
            if not takes_any:
                yield f"{field}.{key} is unknown{suggest(str(key), parameters)}"
        elif key in hints and not _has_target(value):
            yield from type_error(f"{field}.{key}", value, hints[key])
    if not node.get("_partial_"):
        yield from _missing(node, field, parameters)


def _missing(
    node: Mapping[str, Any], field: str, parameters: Mapping[str, inspect.Parameter]
) -> Iterator[str]:
    given = next((names for start, names in _GIVEN.items() if field.startswith(f"{start}.")), ())
    for name, one in parameters.items():
        named = one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if named and one.default is one.empty and name not in node and name not in given:
            yield f"{field}.{name} is missing: give +{field}.{name}=…"


def _find(target: str, field: str) -> Callable[..., Any]:
    """Return what a ``_target_`` names; of a model, from the allow-list only."""
    if field.startswith("model."):
        return locate(target, ALLOWED)
    try:
        found = get_object(target)
    except Exception as error:  # hydra raises whatever the import raised
        raise ValueError(
            f"_target_ is {target!r}, which cannot be imported ({str(error).splitlines()[0]}): "
            "give the full name of a class or function"
        ) from error
    if not callable(found):
        raise ValueError(f"_target_ is {target!r}, no class or function: give the name of one")
    return found


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(
            target.__init__ if isinstance(target, type) else target, include_extras=True
        )
    except (NameError, TypeError, AttributeError):  # names known to type checkers only
        return {}


def _has_target(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))


def type_error(field: str, value: Any, hint: Any) -> Iterator[str]:
    """Yield a sentence if a value does not fit a type; types that YAML cannot write pass."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        if {one["type"] for one in error.errors()} == {"needs_python_object"}:
            return
        words = near(value, _words(hint)) if isinstance(value, str) else ""
        yield f"{field} is {_shown(value)}: give {wanted(hint)}{words}"
    except (PydanticSchemaGenerationError, TypeError):
        return


def near(name: str, known: Iterable[str]) -> str:
    """Return the near matches of a name, and nothing where there are none."""
    found = suggest(name, known)
    return found if "did you mean" in found else ""


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def wanted(hint: Any) -> str:
    """Return what a type allows, in words: ``a whole number or null``."""
    words = list(dict.fromkeys(_kinds(hint)))
    if "a number" in words:
        words = [word for word in words if word != "a whole number"]
    return " or ".join(word for word in words if word) or "another value"


_SIMPLE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def _kinds(hint: Any) -> Iterator[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        told = [one for one in arguments[1:] if isinstance(one, str)]
        yield from told or _kinds(arguments[0])
    elif origin in (Union, types.UnionType):
        for one in arguments:
            yield from _kinds(one)
    elif origin is Literal:
        yield from map(str, arguments)
    elif hint in _SIMPLE:
        yield _SIMPLE[hint]
    elif isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
        plain = not arguments or arguments[1] is Any
        of = "" if plain else f" of {wanted(arguments[0])} to {wanted(arguments[1])}"
        yield f"a mapping{of}"
    elif origin is not None:
        yield f"a list (each {wanted(arguments[0])})" if arguments else "a list"


def _words(hint: Any) -> list[str]:
    """Return the words that a type allows."""
    if get_origin(hint) is Literal:
        return [str(one) for one in get_args(hint)]
    return [word for one in get_args(hint) if not isinstance(one, str) for word in _words(one)]
