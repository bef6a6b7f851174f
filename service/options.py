"""Options of every route: their types, defaults and meaning, and how a request gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kernels import OUTPUTS
from service.codecs.base import shown
from service.codecs.naming import Spellings, advice
from service.errors import InvalidOption

_MOST_FIELDS = 64
# Texts that are remembered are shorter, in all.
_LONG = 256
_LONGEST = 4096  # characters of an option's text: ten times what any needs
_PLAIN = frozenset({str, int, float, bool, type(None)})

_Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
_Scale = Annotated[float, Field(ge=1e-30, le=1e30)]

# Log-probabilities are no logits: only their loss is known.
NLL_OUTPUTS = ("loss", "per_element")


def _split(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _known(known: tuple[str, ...], names: list[str]) -> list[str]:
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise ValueError(f"unknown output {shown(name)}: the outputs here are {listed}")
    return list(dict.fromkeys(names))


def _some_of(known: tuple[str, ...]) -> Any:
    return Field(
        ["loss", "per_element"],
        min_length=1,
        max_length=_MOST_FIELDS,
        description=f"What to return, a list or one text with commas: of {', '.join(known)}.",
        json_schema_extra={"items": {"type": "string", "enum": list(known)}},
    )


class Options(BaseModel):
    """Options of every route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_axis: _Integer | None = Field(
        None,
        description="Axis of the logits that holds the classes; negative counts from the end."
        " By default 1, or 0 for logits of one dimension; -1 for channels-last data.",
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "auto",
        description="What computes: `auto` is what the server was started for; `cuda` is its GPU,"
        " and an error where it has none or was started for the CPU; `cpu` can always be had.",
    )


class LogitOptions(Options):
    """Options of every route that starts from logits."""

    temperature: _Scale = Field(
        1.0, description="What the logits are divided by, after `softcap`: from 1e-30 to 1e30."
    )
    softcap: _Scale | None = Field(
        None,
        description="Bound of the logits: each x is first made `softcap * tanh(x / softcap)`; from"
        " 1e-30 to 1e30. By default there is none.",
    )


class LabelOptions(Options):
    """Options of every route that has labels."""

    ignore_index: _Integer = Field(
        -100,
        description="Label that marks an element as ignored: it contributes neither to the sum nor"
        " to the count. Any integer; below 0, and without effect, where labels are probabilities.",
    )


class LossOptions(LabelOptions):
    """Options of every route that reduces losses."""

    reduction: Literal["none", "mean", "sum"] = Field(
        "mean",
        description="What `loss` is: the mean over the elements that count (weighted by the weights"
        " of their labels and by `sample_weight`), their sum, or with `none` every element's own.",
    )
    empty: Literal["nan", "zero", "error"] = Field(
        "nan",
        description="What the mean over no elements is: NaN as in PyTorch, zero, or an error.",
    )


class NllLossOptions(LossOptions):
    """Options of ``/v1/nll_loss``."""

    outputs: Annotated[
        list[str], BeforeValidator(_split), AfterValidator(partial(_known, NLL_OUTPUTS))
    ] = _some_of(NLL_OUTPUTS)


class SmoothingOptions(Options):
    """Options of every route that can smooth its labels."""

    label_smoothing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of every label that is spread evenly over all classes, from 0 to 1.",
    )


class CrossEntropyOptions(LossOptions, LogitOptions, SmoothingOptions):
    """Options of ``/v1/cross_entropy``."""

    z_loss: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Share of the squared log-sum-exp of its logits that is added to each"
        " element's loss: zero, or positive and finite.",
    )
    check_probabilities: bool = Field(
        True,
        description="Whether labels that are class probabilities must be: none below 0, and those"
        " of each element 1 in all, some rounding aside. Elements of sample weight 0 may be"
        " anything.",
    )
    outputs: Annotated[
        list[str], BeforeValidator(_split), AfterValidator(partial(_known, OUTPUTS))
    ] = _some_of(OUTPUTS)


class ExplainOptions(LabelOptions, SmoothingOptions):
    """Options of ``/v1/explain``: those that all three routes to the loss have."""

    temperature: _Scale = Field(1.0, description="What the logits are divided by: 1e-30 to 1e30.")

    reduction: Literal["mean", "sum"] = Field(
        "mean", description="What the loss of each route is: the weighted mean, or the sum."
    )


AnyOptions = TypeVar("AnyOptions", bound=Options)

# The options of any route, and of the kernels: their names are ours in everybody's metadata.
_EVERY = frozenset(
    {*CrossEntropyOptions.model_fields, *ExplainOptions.model_fields, "logits_dtype"}
)
_SPELLINGS = Spellings(_EVERY)


def from_query(model: type[Options], query: bytes) -> dict[str, str]:
    """Read the options of a query string; raises ``InvalidOption`` for unknown or repeated ones.

    A list may be repeated, an element or several at a time.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise InvalidOption(f"more than {_MOST_FIELDS} options in the query string") from None
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
            if len(value) > _MOST_FIELDS or not all(type(item) is str for item in value):
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
    ours = (name for name in body if typed or name in _EVERY or _SPELLINGS.meant(name))
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
