"""Options of every route: their types, defaults and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from kernels.plan import MOST_TOP, outputs_of
from service.codecs.base import shown

MOST_FIELDS = 64  # of a query string, and of a list

_Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
_Scale = Annotated[float, Field(ge=1e-30, le=1e30)]

_Z_LOSS: Any = Field(
    0.0,
    ge=0,
    allow_inf_nan=False,
    description="Share of the squared log-sum-exp of its logits that is added to each"
    " element's loss: zero, or positive and finite.",
)

# Outputs without being asked: in /v1 with the sums that losses of parts are merged from.
LOSSES = ("loss", "per_element")
MERGEABLE = (*LOSSES, "count", "weight_sum", "loss_sum")


def _some_of(known: tuple[str, ...]) -> Any:
    return Field(
        list(MERGEABLE),
        min_length=1,
        max_length=MOST_FIELDS,
        description=f"What to return, a list or one text with commas: of {', '.join(known)}.",
        json_schema_extra={"items": {"type": "string", "enum": list(known)}},
    )


class Options(BaseModel):
    """Options of every route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["cpu", "cuda", "auto"] = Field(
        "auto",
        description="What computes: `auto` is what the server was started for; `cuda` is its GPU,"
        " and an error where it has none or was started for the CPU; `cpu` can always be had.",
    )


class ClassOptions(Options):
    """Options of every route whose logits have a class axis."""

    class_axis: _Integer | None = Field(
        None,
        description="Axis of the logits that holds the classes; negative counts from the end."
        " By default 1, or 0 for logits of one dimension; -1 for channels-last data.",
    )


class LogitOptions(ClassOptions):
    """Options of every route that starts from logits."""

    temperature: _Scale = Field(
        1.0, description="What the logits are divided by, after `softcap`: from 1e-30 to 1e30."
    )
    softcap: _Scale | None = Field(
        None,
        description="Bound of the logits: each x is first made `softcap * tanh(x / softcap)`; from"
        " 1e-30 to 1e30. By default there is none.",
    )


class LabelOptions(ClassOptions):
    """Options of every route that has labels that are classes."""

    ignore_index: _Integer = Field(
        -100,
        description="Label that marks an element as ignored: it contributes neither to the sum nor"
        " to the count. Any integer; below 0, and without effect, where labels are probabilities.",
    )


class OutputOptions(Options):
    """Options of every route whose outputs can be chosen, from those in ``KNOWN``."""

    KNOWN: ClassVar[tuple[str, ...]]

    @field_validator("outputs", mode="before", check_fields=False)
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("outputs", check_fields=False)
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in cls.KNOWN:
                listed = ", ".join(cls.KNOWN)
                raise ValueError(f"unknown output {shown(name)}: the outputs here are {listed}")
        return list(dict.fromkeys(names))


class ReductionOptions(OutputOptions):
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


class LossOptions(ReductionOptions, LabelOptions):
    """Options of every route that reduces losses of labels that are classes."""

    shift: _Integer = Field(
        0,
        description="How many positions before a label the logits lie that score it, along the axis"
        " of the labels after the first: 1 for the logits of a causal language model and its"
        " tokens. At most the length of that axis. Nothing is copied, and large bodies stream.",
    )
    bytes: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = Field(
        None,
        description="Length in bytes of the text that the labels are: for `bits_per_byte`.",
    )


class NllLossOptions(LossOptions):
    """Options of ``/v1/nll_loss``."""

    KNOWN = outputs_of("nll_loss")
    outputs: list[str] = _some_of(KNOWN)


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

    z_loss: float = _Z_LOSS
    focal: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Exponent gamma of a focal loss: each element's cross-entropy is multiplied by"
        " `(1 - p) ** focal`, where p is the probability of its label, or the mean under the"
        " smoothed label or the class probabilities. Zero, or positive and finite.",
    )
    top_k: Annotated[int, Field(ge=1, le=MOST_TOP)] | None = Field(
        None,
        description="How many classes `top_log_probs` and `top_classes` have of each element: from"
        f" 1 to {MOST_TOP}, and no more than there are.",
    )
    check_probabilities: bool = Field(
        True,
        description="Whether labels that are class probabilities must be: none below 0, and those"
        " of each element 1 in all, some rounding aside. Elements of sample weight 0 may be"
        " anything.",
    )
    KNOWN = outputs_of("cross_entropy")
    outputs: list[str] = _some_of(KNOWN)


class KlDivOptions(LossOptions):
    """Options of ``/v1/kl_div``."""

    direction: Literal["forward", "reverse", "jsd"] = Field(
        "forward",
        description="`forward`: KL(teacher || student), `reverse`: KL(student || teacher), `jsd`:"
        " the generalised Jensen-Shannon divergence, `beta * KL(teacher || m) + (1 - beta) *"
        " KL(student || m)` with `m = beta * teacher + (1 - beta) * student`.",
    )
    beta: float = Field(
        0.5, gt=0, lt=1, description="Weight of the teacher in `jsd`: between 0 and 1, and neither."
    )
    tail: Literal["bucket", "ignore", "renormalize"] = Field(
        "bucket",
        description="What becomes of the classes that a sparse teacher does not list: they are one"
        " more class on both sides (`bucket`), are left out of the sum (`ignore`), or count as"
        " impossible, both sides being divided by their sums over the listed ones (`renormalize`).",
    )
    temperature: _Scale = Field(
        1.0, description="What both sides' logits are divided by: from 1e-30 to 1e30."
    )
    target_temperature: _Scale | None = Field(
        None,
        description="What the targets are divided by, where it is not `temperature`: 1 takes"
        " log-probabilities that were made at the student's temperature as they are.",
    )
    temperature_squared: bool = Field(
        False,
        description="Whether divergences are multiplied by the square of `temperature`, so that"
        " gradients keep their size.",
    )
    shift: _Integer = Field(
        0,
        description="How many positions labels, mask and weights are behind the logits that they"
        " are of: those at t belong to `logits[t - shift]`, along the axis next to the batch's.",
    )
    check_probabilities: bool = Field(
        True,
        description="Whether the probabilities of `target_log_probs` must sum to 1, and those of"
        " `target_top_log_probs` to at most 1, some rounding aside. Elements of weight 0 may be"
        " anything.",
    )
    KNOWN = outputs_of("kl_div")
    outputs: list[str] = _some_of(KNOWN)


class BinaryCrossEntropyOptions(ReductionOptions):
    """Options of ``/v1/binary_cross_entropy``."""

    ignore_index: _Integer = Field(
        -100,
        description="Label that marks an element as ignored: it contributes neither to the sum nor"
        " to the count. Any integer, which labels that are probabilities may equal as well.",
    )
    check_probabilities: bool = Field(
        True,
        description="Whether floating-point labels must be from 0 to 1, or `ignore_index`.",
    )
    KNOWN = outputs_of("binary_cross_entropy")
    outputs: list[str] = _some_of(KNOWN)


class ExplainOptions(LabelOptions, SmoothingOptions):
    """Options of ``/v1/explain``: those that all three routes to the loss have."""

    temperature: _Scale = Field(1.0, description="What the logits are divided by: 1e-30 to 1e30.")

    reduction: Literal["mean", "sum"] = Field(
        "mean", description="What the loss of each route is: the weighted mean, or the sum."
    )


class ReportOptions(LabelOptions, LogitOptions, SmoothingOptions):
    """Options of ``/v1/report``."""

    z_loss: float = _Z_LOSS
    bins: int = Field(
        15,
        ge=1,
        le=1000,
        description="Number of bins, of equal width, that confidences are counted in.",
    )
    worst: int = Field(
        20, ge=0, le=1000, description="How many of the positions of most loss are listed."
    )
    layout: Literal["auto", "image", "sequence", "flat"] = Field(
        "auto",
        description="What the axes of the labels are: `image` for (N, H, W), `sequence` for tokens"
        " along the last one, `flat` for neither. `auto`: images for logits of four dimensions,"
        " sequences for those of three whose classes are last.",
    )


AnyOptions = TypeVar("AnyOptions", bound=Options)


def answering(model: type[AnyOptions], outputs: Iterable[str]) -> type[AnyOptions]:
    """Make ``model`` with other default outputs; without that option it is returned itself."""
    if "outputs" not in model.model_fields:
        return model
    field = copy(model.model_fields["outputs"])
    field.default = list(outputs)
    changed: Any = {"outputs": (field.annotation, field)}
    return create_model(model.__name__, __base__=model, **changed)
