"""Options may come as text or typed, from two places; each mistake is named."""

from __future__ import annotations

from typing import Any

import pytest

import kernels
from kernels.plan import outputs_of
from service.errors import InvalidOption
from service.options import (
    ClassOptions,
    CrossEntropyOptions,
    ExplainOptions,
    LogitOptions,
    NllLossOptions,
    Options,
)
from service.request.given import combine, from_query

EVERY: dict[str, Any] = {
    "class_axis": -1,
    "device": "cpu",
    "ignore_index": -1,
    "label_smoothing": 0.25,
    "reduction": "sum",
    "temperature": 0.5,
    "softcap": 30.0,
    "z_loss": 1e-4,
    "empty": "zero",
    "shift": 1,
    "bytes": 12,
    "focal": 2.0,
    "top_k": 3,
    "check_probabilities": False,
    "outputs": ["per_element", "gradient", "loss"],
}
AS_TEXT = {name: str(value) for name, value in EVERY.items()} | {
    "outputs": "per_element, gradient ,loss"
}


def combined(
    query: str = "",
    body: dict[str, Any] | None = None,
    *,
    typed: bool = True,
    model: type[Options] = CrossEntropyOptions,
) -> dict[str, Any]:
    return combine(model, from_query(model, query.encode()), body or {}, typed=typed).model_dump()


def test_the_defaults_are_those_of_pytorch() -> None:
    assert combined() == {
        "class_axis": None,
        "device": "auto",
        "ignore_index": -100,
        "label_smoothing": 0.0,
        "reduction": "mean",
        "temperature": 1.0,
        "softcap": None,
        "z_loss": 0.0,
        "empty": "nan",
        "shift": 0,
        "bytes": None,
        "focal": 0.0,
        "top_k": None,
        "check_probabilities": True,
        "outputs": ["loss", "per_element", "count", "weight_sum", "loss_sum"],
    }


def test_query_json_and_metadata_say_the_same() -> None:
    query = "&".join(f"{name}={value}" for name, value in AS_TEXT.items())
    assert combined(query) == combined(body=EVERY) == combined(body=AS_TEXT, typed=False) == EVERY
    assert combined("class_axis=-1&reduction=sum", {"label_smoothing": 0.25}) == combined(
        body={"class_axis": -1, "reduction": "sum", "label_smoothing": 0.25}
    )


@pytest.mark.parametrize("value", ["per_element", ["per_element"], ["per_element"] * 3])
def test_outputs_are_a_list_or_a_text(value: Any) -> None:
    assert combined(body={"outputs": value})["outputs"] == ["per_element"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_axis", True),
        ("class_axis", 1.0),
        ("class_axis", "1"),
        ("class_axis", 2**63),
        pytest.param("class_axis", 10**6000, id="class_axis-huge"),
        ("device", "gpu"),
        ("device", 0),
        ("ignore_index", []),
        ("label_smoothing", "0.1"),
        ("label_smoothing", float("nan")),
        ("label_smoothing", -0.1),
        ("label_smoothing", 1.5),
        ("label_smoothing", False),
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("softcap", 0.0),
        ("softcap", "30"),
        ("softcap", True),
        ("z_loss", -1e-4),
        ("z_loss", float("inf")),
        ("z_loss", float("nan")),
        ("shift", 0.5),
        ("shift", True),
        ("bytes", 0),
        ("bytes", "12"),
        ("reduction", "average"),
        ("reduction", 1),
        pytest.param("reduction", "x" * 10**6, id="reduction-long"),
        ("outputs", []),
        ("outputs", ""),
        ("outputs", ["loss", 1]),
        pytest.param("outputs", ["loss"] * 10**6, id="outputs-many"),
        ("outputs", {"loss": 1}),
        ("outputs", ["gradients"]),
        pytest.param("outputs", ["x" * 10**6], id="outputs-long"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        combined(body={name: value})
    assert caught.value.field == name
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    "query",
    ["class_axis=", "class_axis", "class_axis=1.5", "ignore_index=0x10", "label_smoothing=x",
     "temperature=0", "temperature=nan", "softcap=", "softcap=none", "z_loss=-1", "z_loss=inf",
     "reduction=", "reduction=MEAN", "outputs=", "outputs=loss;per_element", "empty=%ff"],
)  # fmt: skip
def test_a_text_of_the_wrong_type_is_named(query: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        combined(query)
    assert caught.value.field == query.partition("=")[0]


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        (ClassOptions, "reduction"),
        (ClassOptions, "outputs"),
        (NllLossOptions, "label_smoothing"),
        (ExplainOptions, "softcap"),
        (ClassOptions, "z_loss"),
        (LogitOptions, "label_smoothing"),
        (NllLossOptions, "temperature"),
        (CrossEntropyOptions, "logits_dtype"),
        (CrossEntropyOptions, ""),
        (CrossEntropyOptions, "Reduction"),
    ],
)
def test_an_unknown_option_is_named_and_the_known_are_listed(
    model: type[Options], unknown: str, typed: bool
) -> None:
    bodies = [{unknown: "mean"}] if typed or unknown else []
    for query, body in ((f"{unknown}=mean", {}), *(("", body) for body in bodies)):
        with pytest.raises(InvalidOption, match=r"unknown option .*class_axis") as caught:
            combined(query, body, typed=typed, model=model)
        assert caught.value.field == unknown


@pytest.mark.parametrize(
    ("model", "unknown", "known"),
    [
        (CrossEntropyOptions, "accuracy", kernels.OUTPUTS),
        (NllLossOptions, "gradient", outputs_of("nll_loss")),
    ],
)
def test_outputs_that_are_unknown_are_named_and_those_of_the_route_are_listed(
    model: type[Options], unknown: str, known: tuple[str, ...]
) -> None:
    listed = f"unknown output '{unknown}': the outputs here are {', '.join(known)}"
    for query, body in ((f"outputs=loss,{unknown}", {}), ("", {"outputs": ["loss", unknown]})):
        with pytest.raises(InvalidOption) as caught:
            combined(query, body, model=model)
        assert (caught.value.field, caught.value.message) == ("outputs", listed)


def test_an_option_is_given_once() -> None:
    with pytest.raises(InvalidOption, match="twice"):
        combined("reduction=sum&reduction=sum")
    for typed in (True, False):
        with pytest.raises(InvalidOption, match="both in the query string and in the body"):
            combined("reduction=sum", {"reduction": "sum"}, typed=typed)


def test_a_million_unknown_options_are_one_short_error() -> None:
    with pytest.raises(InvalidOption, match="more than 64"):
        combined("&".join(f"a{number}=1" for number in range(10**5)))
    with pytest.raises(InvalidOption, match=r"unknown option 'a0'"):
        combined(body={f"a{number}": 1 for number in range(10**6)})


def test_a_list_may_be_repeated_in_the_query() -> None:
    wanted = ["loss", "rank", "entropy"]
    for query in ("outputs=loss&outputs=rank&outputs=entropy", "outputs=loss,rank&outputs=entropy"):
        assert combined(query)["outputs"] == wanted
    with pytest.raises(InvalidOption, match="unknown output 'ranks'"):
        combined("outputs=loss&outputs=ranks")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("typed", [True, False])
def test_null_is_no_option(name: str, typed: bool) -> None:
    assert combined(body={name: None}, typed=typed) == combined()
    # Nor is it a second one.
    assert combined(f"{name}={AS_TEXT[name]}", {name: None})[name] == EVERY[name]
    with pytest.raises(InvalidOption, match="unknown option 'reductions'"):
        combined(body={"reductions": None}, typed=typed)


@pytest.mark.parametrize(
    "notes",
    [
        {"format": "pt"},
        {"format": "pt", "epoch": "3"},
        {"loss": "0.31", "softmax": "no", "device_id": "0", "dtype": "bfloat16", "": ""},
        {"modelspec.title": "x", "total_size": "7", "class_names": "cat,dog", "step" * 99: ""},
    ],
)
def test_notes_of_a_files_writer_are_no_options(notes: dict[str, str]) -> None:
    assert combined(body=notes, typed=False) == combined()
    assert combined(body=notes | AS_TEXT, typed=False) == EVERY
    with pytest.raises(InvalidOption, match=f"unknown option '{next(iter(notes))}'"):
        combined(body=notes, typed=True)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("reducton", "reduction"),
        ("Reduction", "reduction"),
        ("label-smoothing", "label_smoothing"),
        ("labelSmoothing", "label_smoothing"),
        ("label_smooth", "label_smoothing"),
        ("temprature", "temperature"),
        ("temperatrue", "temperature"),
        ("ignore_idx", "ignore_index"),
        ("soft_cap", "softcap"),
        ("output", "outputs"),
        ("emtpy", "empty"),
    ],
)
def test_a_misspelled_option_is_found_among_notes(name: str, meant: str) -> None:
    for typed in (False, True):
        with pytest.raises(InvalidOption, match=rf"unknown option '{name}': .*{meant}") as caught:
            combined(body={"format": "pt", name: "1"} if not typed else {name: "1"}, typed=typed)
        assert caught.value.field == name
    # An option of another route is no note either.
    with pytest.raises(InvalidOption, match="unknown option 'softcap': the options here are"):
        combined(body={"softcap": "30"}, typed=False, model=NllLossOptions)


@pytest.mark.parametrize("name", EVERY)
def test_a_long_text_is_refused_before_it_is_read(name: str) -> None:
    for given in ({"query": f"{name}={'1' * 5000}"}, {"body": {name: "1" * 5000}}):
        for typed in (True, False):
            with pytest.raises(
                InvalidOption, match="5,000 characters, and at most 4,096"
            ) as caught:
                combined(**given, typed=typed)
            assert caught.value.field == name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"temperature": 1.0}, {"temperature": True}),
        ({"ignore_index": 1}, {"ignore_index": 1.0}),
        ({"outputs": ["loss"]}, {"outputs": [["loss"]]}),
        ({"outputs": ["loss", "rank"]}, {"outputs": ["loss", 1]}),
    ],
)
def test_what_is_remembered_is_not_mistaken(first: dict[str, Any], second: dict[str, Any]) -> None:
    for _ in range(2):
        assert combined(body=first).items() >= first.items()
        with pytest.raises(InvalidOption):
            combined(body=second)


def test_text_is_not_mistaken_for_a_typed_value() -> None:
    text = {"reduction": "sum", "temperature": "2"}
    assert combined(body=text, typed=False)["temperature"] == 2.0
    with pytest.raises(InvalidOption):
        combined(body=text)
    assert combined("reduction=sum&temperature=2")["temperature"] == 2.0
