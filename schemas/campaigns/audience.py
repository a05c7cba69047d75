"""An audience: a tree of `all`, `any`, `not` over SQL conditions, named audiences and id lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

Sql = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
ListFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_./-]{0,200}$")]


class Strict(BaseModel):
    """A configuration model: frozen, and an unknown field is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AllOf(Strict):
    """Passes when every child passes; a child sees only what the ones before it passed."""

    all: list[Node] = Field(min_length=1)


class AnyOf(Strict):
    """Passes when a child passes; a child sees only what the ones before it did not pass."""

    any: list[Node] = Field(min_length=1)


class Not(Strict):
    """Passes when its child does not (a condition that is NULL does not pass, so its `not` does)."""

    not_: Node = Field(alias="not")


class Named(Strict):
    """The audience of the file audiences/NAME.yaml."""

    audience: Name


class InList(Strict):
    """Passes when the customer's column stands in a list (connectors/inputs/lists.py says in which column of it)."""

    list: ListFile
    column: str = "customer_id"


def _kind(raw: Any) -> str:
    if isinstance(raw, str):
        return "sql"
    if isinstance(raw, BaseModel):
        return {AllOf: "all", AnyOf: "any", Not: "not", Named: "audience", InList: "list"}[type(raw)]
    if isinstance(raw, dict):
        return next((key for key in ("all", "any", "not", "audience", "list") if key in raw), "?")
    return "?"


Node = Annotated[
    Annotated[Sql, Tag("sql")]
    | Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[Named, Tag("audience")]
    | Annotated[InList, Tag("list")],
    Discriminator(
        _kind,
        custom_error_type="audience_node",
        custom_error_message="must be an SQL condition in quotes or one of all:, any:, not:, audience:, list:",
    ),
]

for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()


class NamedAudience(Strict):
    """A file of audiences/: an audience that several campaigns use."""

    audience: Node
    description: str = ""


def leaves(node: Node) -> Iterator[str | Named | InList]:
    """The conditions, named audiences and lists of a tree, in order."""
    if isinstance(node, str | Named | InList):
        yield node
    for child in node.all if isinstance(node, AllOf) else node.any if isinstance(node, AnyOf) else ():
        yield from leaves(child)
    if isinstance(node, Not):
        yield from leaves(node.not_)
