"""Reads configuration so that no mistake passes silently: every refusal names the full key path and a way out.

YAML on its own accepts duplicate keys, and a misspelt key would simply leave its default standing; both are refused
here, before msgspec checks types and bounds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, TypeVar

import msgspec
import yaml

from memrt.runtime.errors import MemrtError

StructT = TypeVar("StructT", bound=msgspec.Struct)
Count = Annotated[int, msgspec.Meta(ge=1)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class FieldError(ValueError):
    """A broken rule between fields of one struct, raised from its `__post_init__`; `convert` adds path and source."""

    def __init__(self, field: str, *, expected: object, found: object, fix: str) -> None:
        self.field, self.expected, self.found, self.fix = field, expected, found, fix
        super().__init__(f"`{field}`: expected {expected}, found {found}")


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most probably was meant to be, or None."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds. Raises MemrtError when it is missing, malformed, or not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MemrtError(
            f"configuration file {path}", expected="a readable UTF-8 YAML file", found=error, fix="check the path"
        ) from error
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise MemrtError(
            f"configuration file {path}",
            expected="valid YAML with every key given once",
            found=error,
            fix="correct the line named here",
        ) from error
    if not isinstance(data, dict):
        raise MemrtError(
            f"configuration file {path}",
            expected="a mapping of keys to values",
            found=f"a {type(data).__name__}",
            fix="start the file with `name: ...`",
        )
    return data


def convert(data: Mapping[str, Any], struct: type[StructT], source: str) -> StructT:
    """`data` as a validated `struct`. Raises MemrtError naming `source` and the key path of the first problem."""
    _refuse_unknown_keys(data, _type_of(struct), (), source)
    try:
        return msgspec.convert(data, struct)
    except msgspec.ValidationError as error:
        raise _explain(error, data, source) from error


@lru_cache(maxsize=64)
def _type_of(struct: type[msgspec.Struct]) -> msgspec.inspect.Type:
    """Looking through a policy's nested structs takes longer than checking its values."""
    return msgspec.inspect.type_info(struct)


def check_placeholders(field: str, template: str, wanted: set[str], allowed: set[str]) -> None:
    """Raises FieldError unless `template` has the `wanted` placeholders and none that is not `allowed`."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise FieldError(
            field, expected="balanced braces", found=error, fix="write a literal brace as `{{` or `}}`"
        ) from None
    found = {name for _, name, _, _ in parts if name is not None}
    plain = all(not spec and conversion is None for _, _, spec, conversion in parts)
    if not (plain and wanted <= found <= allowed):
        raise FieldError(
            field,
            expected=f"the placeholders {_braced(wanted)}" + (f" and at most {_braced(allowed)}" if allowed else ""),
            found=_braced(found),
            fix=f"correct the placeholders of `{field}`",
        )


def _braced(names: set[str]) -> str:
    return " ".join(f"{{{name}}}" for name in sorted(names)) or "none"


def _refuse_unknown_keys(value: Any, kind: msgspec.inspect.Type, path: tuple[str, ...], source: str) -> None:
    if isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            _refuse_unknown_keys(value, option, path, source)
    elif isinstance(kind, msgspec.inspect.DictType) and isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_unknown_keys(item, kind.value_type, (*path, str(key)), source)
    elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_unknown_keys(item, kind.item_type, (*path, str(index)), source)
    elif isinstance(kind, msgspec.inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, item in value.items():
            if key not in fields:
                raise _unknown_key(str(key), fields, path, source)
            _refuse_unknown_keys(item, fields[key], (*path, key), source)


def _unknown_key(key: str, allowed: Iterable[str], path: tuple[str, ...], source: str) -> MemrtError:
    where = ".".join(path) or "the top level"
    close = nearest(key, allowed)
    return MemrtError(
        f"unknown key `{'.'.join((*path, key))}` in {source}",
        expected=f"one of {', '.join(sorted(allowed))} in {where}",
        found=f"`{key}`",
        fix=f"did you mean `{'.'.join((*path, close))}`?" if close else f"remove `{key}`",
    )


# msgspec reports "Expected `int`, got `str` - at `$.low_level.horizon`"; the parts behind `got` and `at` are optional.
_VALIDATION = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_EXPECTED_GOT = re.compile(r"^Expected (?P<expected>.*?)(?:, got (?P<found>.*))?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$")


def _explain(error: msgspec.ValidationError, data: Mapping[str, Any], source: str) -> MemrtError:
    match = _VALIDATION.match(str(error))
    text = match["text"] if match else str(error)
    path = (match["path"] or "").lstrip(".") if match else ""
    problem = error.__cause__
    if isinstance(problem, FieldError):
        where = ".".join(filter(None, (path, problem.field)))
        return MemrtError(f"key `{where}` in {source}", expected=problem.expected, found=problem.found, fix=problem.fix)
    if missing := _MISSING.match(text):
        where = ".".join(filter(None, (path, missing["field"])))
        return MemrtError(f"key `{where}` in {source}", expected="a value", found="no such key", fix=f"add `{where}`")
    expected_got = _EXPECTED_GOT.match(text)
    expected = expected_got["expected"] if expected_got else text
    return MemrtError(
        f"key `{path or 'the top level'}` in {source}",
        expected=expected,
        found=_describe(_lookup(data, path)),
        fix=f"correct `{path}`" if path else "correct the file",
    )


def _lookup(data: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", path):
        try:
            data = data[int(part)] if isinstance(data, list | tuple) else data[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return "something else"  # msgspec writes `[...]` for dictionary values: the exact entry is not named
    return data


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"
