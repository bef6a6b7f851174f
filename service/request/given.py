"""Options that a request gives, in its query string and its body: read, combined, validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from service.codecs.base import shown
from service.codecs.naming import Spellings, advice
from service.errors import InvalidOption
from service.options import (
    MOST_FIELDS,
    AnyOptions,
    CrossEntropyOptions,
    ExplainOptions,
    Options,
)

# Texts that are remembered are shorter, in all.
_LONG = 256
_LONGEST = 4096  # characters of an option's text: ten times what any needs
_PLAIN = frozenset({str, int, float, bool, type(None)})
# The options of any route, and of the kernels: their names are ours in everybody's metadata.
_EVERY = frozenset(
    {*CrossEntropyOptions.model_fields, *ExplainOptions.model_fields, "logits_dtype"}
)


@lru_cache
def _spellings(model: type[Options]) -> Spellings:
    return Spellings(_EVERY.union(model.model_fields))


def from_query(model: type[Options], query: bytes) -> dict[str, str]:
    """Read the options of a query string; raises ``InvalidOption`` for unknown or repeated ones.

    A list may be repeated, an element or several at a time.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise InvalidOption(f"more than {MOST_FIELDS} options in the query string") from None
    _check_names(model, [name for name, _ in pairs])
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given and model.model_fields[name].annotation != list[str]:
            raise InvalidOption(
                f"option {shown(name)} is given twice in the query string", field=name
            )
        given[name] = f"{given[name]},{value}" if name in given else value
    return given


def combine(
    model: type[AnyOptions], query: Mapping[str, str], body: Mapping[str, Any], *, typed: bool
) -> AnyOptions:
    """Combine and validate the options that a request gives in its ``query`` and its ``body``.

    ``typed`` says that the body's values are JSON's, which have types, and that every one is an
    option, of which null is none; otherwise they are texts, as those of a query always are, and may
    be notes of others'. Raises ``InvalidOption`` for an option that is unknown, given in both
    places, or of the wrong type.
    """
    given = _plain(query), _plain(body)
    if None in given:
        # To take a million digits or names for a value takes long.
        for name, value in (*query.items(), *body.items()):
            if isinstance(value, str) and len(value) > _LONGEST and name in model.model_fields:
                raise InvalidOption(
                    f"option {shown(name)} has {len(value):,} characters, and at most {_LONGEST:,}"
                    " are read",
                    field=name,
                )
        return _combined(model, query, body, typed)
    known = _known_options(model, typed, *given)
    assert isinstance(known, model)
    return known


def _plain(given: Mapping[str, Any]) -> tuple[tuple[str, type, Any], ...] | None:
    """``given`` with each value's type, since 1 is equal to True; None if it is not remembered.

    It is not where a value is long, or anything but JSON's scalars and lists of texts.
    """
    plain = []
    for name, value in given.items():
        kind = type(value)
        if kind is list:
            if len(value) > MOST_FIELDS or not all(type(item) is str for item in value):
                return None
            value = tuple(value)
        elif kind not in _PLAIN:
            return None
        if kind in (str, list) and sum(map(len, value)) > _LONG:
            return None
        plain.append((name, kind, value))
    return tuple(plain)


# Clients send the same few options again and again, and to validate them takes 10 us.
@lru_cache(256)
def _known_options(model: type[Options], typed: bool, query: Any, body: Any) -> Options:
    texts = {name: value for name, _, value in query}
    values = {name: list(value) if kind is list else value for name, kind, value in body}
    return _combined(model, texts, values, typed)


def _combined(
    model: type[AnyOptions], query: Mapping[str, str], body: Mapping[str, Any], typed: bool
) -> AnyOptions:
    # Of metadata, names that are options or were meant to be: others are its writer's.
    ours = (name for name in body if typed or _spellings(model).meant(name))
    _check_names(model, ours)
    known = model.model_fields
    body = {name: value for name, value in body.items() if name in known and value is not None}
    for name in body:
        if name in query:
            raise InvalidOption(
                f"option {shown(name)} is given both in the query string and in the body",
                field=name,
            )
    try:
        if not typed:
            return model.model_validate_strings({**query, **body})
        from_texts = model.model_validate_strings(query).model_dump(exclude_unset=True)
        return model.model_validate({**body, **from_texts}, strict=True)
    except ValidationError as error:
        raise _as_invalid_option(error) from None


def _check_names(model: type[Options], names: Iterable[str]) -> None:
    # Before any validation, whose errors would list every one of a million unknown names.
    for name in names:
        if name not in model.model_fields:
            known = ", ".join(model.model_fields)
            raise InvalidOption(
                f"unknown option {shown(name)}: the options here are {known}"
                f"{advice(name, model.model_fields)}",
                field=name,
            )


def _as_invalid_option(error: ValidationError) -> InvalidOption:
    problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0])
    if problem["type"] == "value_error":
        return InvalidOption(str(problem["ctx"]["error"]), field=name)
    value = problem["input"]
    text = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
    if isinstance(value, str | float):
        text += f", not {shown(value) if isinstance(value, str) else value}"
    return InvalidOption(f"{name}: {text}", field=name)
