"""Configs refuse what they do not know, and name what others stand for wherever it is nested."""

import math
from dataclasses import FrozenInstanceError
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from playpen.config import (
    File,
    HubData,
    HubModel,
    Input,
    PlaypenError,
    config,
    inputs_of,
    leaves,
    make_config,
    map_files,
    map_inputs,
    pin_hub,
    to_plain,
)


@config
class Inner:
    kind: Literal["inner"] = "inner"
    like: Input = "inner"
    width: int = 3


@config
class Other:
    kind: Literal["other"] = "other"
    base: HubModel = "owner/model"


@config
class Outer:
    plain: str = "plain"
    one: Input = "one"
    maybe: Input | None = "maybe"
    many: tuple[Input, ...] = ("many",)
    maybe_many: tuple[Input, ...] | None = ("maybe_many",)
    named: dict[str, Input] = Field(default_factory=lambda: {"key": "named"})
    checked: Annotated[dict[str, Input], Field(max_length=3)] = Field(default_factory=lambda: {"key": "checked"})
    sets: dict[str, tuple[Input, ...]] = Field(default_factory=lambda: {"key": ("sets",)})
    union: Annotated[Inner | Other, Field(discriminator="kind")] = Inner()
    file: File | None = "file"
    hub: HubData | None = "owner/data"
    words: tuple[str, ...] = ("word",)
    anything: Any = None


def test_every_input_is_found_however_deeply_nested_and_nothing_else():
    assert inputs_of(Outer()) == ["one", "maybe", "many", "maybe_many", "named", "checked", "sets", "inner"]


def test_inputs_files_and_hub_references_are_replaced_each_on_their_own():
    made = Outer(union=Other())
    assert map_inputs(made, str.upper).sets == {"key": ("SETS",)}
    assert map_inputs(made, str.upper).file == "file"
    assert (map_files(made, str.upper).file, map_files(made, str.upper).one) == ("FILE", "one")
    pinned = pin_hub(made, lambda reference, kind: f"{kind} {reference}")
    assert (pinned.hub, pinned.union, pinned.one) == ("dataset owner/data", Other(base="model owner/model"), "one")


def test_a_config_is_frozen_and_takes_keywords_only():
    with pytest.raises(FrozenInstanceError):
        Inner().width = 4
    with pytest.raises(Exception, match="positional"):
        Inner("inner")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plian": "x"}, "unknown field 'plian'; did you mean plain?"),
        ({"union": {"kind": "inner", "widht": 3}}, "unknown field 'union.inner.widht'; did you mean width?"),
        ({"union": {"kind": "iner"}}, "field 'union': Input tag 'iner' .* 'inner', 'other'"),
        ({"one": 3}, "field 'one': Input should be a valid string, found 3"),
        ({"union": {"kind": "inner", "width": "wide"}}, "field 'union.inner.width': .* integer.*, found 'wide'"),
        ({"named": ["a"]}, r"field 'named': .* dictionary, found \['a'\]"),
    ],
)
def test_a_mistake_is_one_line_with_the_place_what_was_found_and_a_hint(values, message):
    with pytest.raises(PlaypenError, match=f"^entry 'x': {message}") as caught:
        make_config(Outer, values, "entry 'x'")
    assert "\n" not in str(caught.value)


@config
class Pair:
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _in_order(self) -> "Pair":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def test_fields_that_contradict_each_other_are_told_without_the_whole_config():
    with pytest.raises(PlaypenError) as error:
        make_config(Pair, {"low": 2}, "entry 'pair'")
    assert str(error.value) == "entry 'pair': low is above high"


def test_a_missing_field_is_named():
    @config
    class Needy:
        number: int

    with pytest.raises(PlaypenError, match=r"^here: field 'number' is missing$"):
        make_config(Needy, {}, "here")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, ["nan", "float", "no identity", "give a finite number"]),
        ([{"deep": -math.inf}], ["-inf", "float", "no identity", "give a finite number"]),
        (print, ["builtin_function_or_method", "may differ from run to run", "give plain data"]),
        ({"deep": (len,)}, ["builtin_function_or_method", "may differ from run to run", "give plain data"]),
        ({1, 2}, ["set", "may differ from run to run", "give plain data"]),
    ],
)
def test_what_has_no_stable_identity_is_refused_with_its_type_the_reason_and_the_remedy(value, words):
    with pytest.raises(PlaypenError) as caught:
        to_plain(Outer(anything=value))
    assert all(word in str(caught.value) for word in words)


def test_plain_data_of_a_config_are_json_of_all_its_fields():
    assert to_plain(Inner(width=4)) == {"kind": "inner", "like": "inner", "width": 4}
    assert to_plain(Outer())["sets"] == {"key": ["sets"]}


def test_leaves_are_named_by_their_path():
    plain = {"a": {"b": 1, "c": {}}, "d": [1, 2]}
    assert dict(leaves(plain)) == {"a.b": 1, "a.c": {}, "d": [1, 2]}
