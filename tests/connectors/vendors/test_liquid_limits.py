"""What a template may take: every tag and filter of the library was looked at, and none makes what is too much."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from liquid import Environment
from support.hostile_templates import ARRAY, BIG, HOSTILE, render_all_elsewhere
from support.vendor_calls import any_event

from connectors.vendors import liquid_filters
from connectors.vendors.liquid_filters import CHECKS, COSTS, FILTERS, LINEAR, OWN
from connectors.vendors.liquid_limits import MAX_ITEMS, TAGS
from connectors.vendors.liquid_parse import check_template, parse_template
from connectors.vendors.liquid_text import TemplateError, TemplateOverLimit, render, render_all

LIBRARY = Environment()


def test_every_filter_and_tag_of_the_library_was_looked_at() -> None:
    assert set(LIBRARY.filters) == FILTERS, "a filter of a newer library: look how it grows, then name it in FILTERS"
    assert set(LIBRARY.tags) == TAGS | {"include", "render"}, (
        "a tag of a newer library: look at it, then name it in TAGS"
    )
    assert not LINEAR & COSTS.keys()
    assert CHECKS.keys() | OWN.keys() <= FILTERS


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_no_filter_takes_a_value_that_is_too_large(name: str) -> None:
    needed = [one for one in inspect.signature(LIBRARY.filters[name]).parameters.values() if one.default is one.empty]
    count = len([one for one in needed if one.kind is one.POSITIONAL_OR_KEYWORD]) - 1
    arguments = ": 'x'" + ", 'x'" * (count - 1) if count else ""
    event = any_event(properties={"big": "x" * 262_145, "many": ["x"] * 10_001})
    for value in ("big", "many"):
        with pytest.raises(TemplateError, match=r"^line 2: (a value|an array) of more than "):
            render(f"\n{{{{ {value} | {name}{arguments} }}}}", event)


@pytest.mark.parametrize("tag", sorted(TAGS - {"content", "illegal", "break", "continue", "comment", "doc", "#"}))
def test_every_tag_costs_a_step(tag: str) -> None:
    forms = {
        "output": "{{ nobody }}", "liquid": "{% liquid\nassign a = 1 %}", "assign": "{% assign a = 1 %}",
        "echo": "{% echo 1 %}", "cycle": "{% cycle 1, 2 %}", "case": "{% case 1 %}{% when 1 %}x{% endcase %}",
        "for": "{% for j in (1..2) %}{% endfor %}", "tablerow": "{% tablerow j in (1..2) %}{% endtablerow %}",
        "capture": "{% capture a %}{% endcapture %}", "increment": "{% increment a %}", "if": "{% if 1 %}{% endif %}",
        "decrement": "{% decrement a %}", "ifchanged": "{% ifchanged %}x{% endifchanged %}",
        "unless": "{% unless 1 %}{% endunless %}",
    }  # fmt: skip
    text = "{% for i in (1..9999) %}" + forms[tag] * 40 + "{% endfor %}"
    assert check_template(text) == []
    with pytest.raises(TemplateError, match=r"does too much|a text of more|loop iteration limit"):
        render(text, any_event())


def test_hostile_templates_live_within_little_memory_and_each_error_names_its_line() -> None:
    rendered, refused = map(int, render_all_elsewhere(0, 60).split())
    assert rendered + refused == 2 * (len(HOSTILE) + 60)
    assert refused > len(HOSTILE)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_template_is_parsed_within_its_limits_or_refused(text: str) -> None:
    for mistake in check_template(text):
        assert mistake.line == 1
        assert len(mistake.words) < 200


def test_a_range_that_is_too_long_is_found_before_anything_is_sent() -> None:
    text = "fine {{ (1..10000) | size }}\n{{ 'x' | append: 'y' }}\n{% for i in (1..10001) %}{% endfor %}"
    assert list(map(str, check_template(text))) == ["line 3: a range of more than 10,000"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ a | append }}", "line 1: the filter append missing a required argument"),
        ("\n{{ 1 | date: '%Y', 3 }}", "line 2: the filter date too many positional arguments"),
        ("{{ a | default: 'x', allow_false: true }}", None),
        ("{{ a | default: 'x', odd: true }}", "line 1: the filter default got an unexpected keyword argument 'odd'"),
        ("{% for a in b %}{% assign c = a | shout %}{% if c %}\n{{ 'x' | append: 'y' | whisper }}{% endif %}{% endfor %}", "line 1: unknown filter 'shout'"),
    ],
)  # fmt: skip
def test_filters_and_their_arguments_are_checked_wherever_they_are(text: str, problem: str | None) -> None:
    found = list(map(str, check_template(text)))
    assert found[0].startswith(problem) if problem else not found
    assert len(found) == (2 if "whisper" in text else 1 if problem else 0)


def test_a_template_that_is_over_its_limits_is_not_rendered_for_all_of_a_call() -> None:
    text = "{% if visits == 3 %}{% for i in (1..9999) %}" + "{{ nobody }}" * 40 + "{% endfor %}{% endif %}fine"
    events: list[dict[str, Any]] = [any_event(n) for n in range(50)]
    events[1] = any_event(1, properties={"visits": 4})
    made = render_all({"plain": text}, events)
    assert made.texts == {1: "fine"}
    assert len(made.broken) == 49
    assert "does too much" in made.words
    with pytest.raises(TemplateOverLimit):
        render(text, any_event())


def test_a_call_whose_templates_fail_at_a_few_events_renders_the_others() -> None:
    events = [any_event(n, properties={"visits": n % 2}) for n in range(50)]
    assert len(render_all({"plain": "{{ 4 | divided_by: visits }}"}, events).texts) == 25


@given(st.lists(st.sampled_from(["a", "b", "<b>", 1, 1.0, True, None, "1", {"x": 1}, {"x": 2}, {}]), max_size=12))
def test_uniq_is_the_same_as_the_librarys(items: list[Any]) -> None:
    for key in (None, "x"):
        given_items = [item for item in items if isinstance(item, dict)] if key else items
        arguments = () if key is None else (key,)
        assert liquid_filters.OWN["uniq"](given_items, *arguments) == LIBRARY.filters["uniq"](given_items, *arguments)


@pytest.mark.parametrize(
    "text",
    ["plain", "a < b and c > d", "<p>Hi <b>you</b></p>", "x<br/>y", "<script>alert(1)</script>z", "<STYLE>a{}</Style>z",
     "a<!-- b > c -->d", "&lt;b&gt;", "<a href='x'>y</a>", "<!DOCTYPE html><p>x", "<script>a</script>b<script>c</script>d"],
)  # fmt: skip
def test_strip_html_is_the_same_as_the_librarys(text: str) -> None:
    assert liquid_filters.OWN["strip_html"](text, environment=LIBRARY) == LIBRARY.filters["strip_html"](
        text, environment=LIBRARY
    )


@pytest.mark.parametrize(
    "text",
    ["{{ first_name | upcase | append: '!' }}", "{% for i in (1..3) %}{% cycle 'a', 'b' %}{{ forloop.index }}{% endfor %}",
     "{{ 'b,a,b' | split: ',' | uniq | sort | join: '+' }}", "{% capture x %}{{ visits }}{% endcapture %}{{ x | times: 2 }}",
     "{% case variant %}{% when 'a' %}A{% else %}B{% endcase %}", "{% tablerow i in (1..3) cols: 2 %}{{ i }}{% endtablerow %}",
     "{{ offers | map: 'code' | first }}", "{% liquid\nassign x = 3\necho x | plus: 1\n%}", "{% raw %}{{ x }}{% endraw %}",
     "{% comment %}{{ x }}{% endcomment %}y", "{{ nobody | default: '<i>' }}", "{{- first_name -}} x", "{% # a remark %}z",
     "{% increment n %}{% increment n %}{% decrement n %}", "{% ifchanged %}a{% endifchanged %}{% ifchanged %}a{% endifchanged %}",
     "{% for i in (1..9) limit: 2 offset: 3 %}{{ i }}{% endfor %}{% for i in (1..9) offset: continue %}{{ i }}{% endfor %}",
     "{% for i in (1..5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"],
)  # fmt: skip
def test_what_a_template_may_do_is_done_as_the_library_does_it(text: str) -> None:
    from connectors.vendors.message_fields import message_fields

    for channel in ("email", "sms"):
        event = any_event(channel=channel)
        library = Environment(autoescape=channel == "email")
        assert check_template(text) == []
        assert render(text, event) == library.from_string(text).render(message_fields(event))


def test_parsed_templates_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from connectors.vendors import liquid_parse

    cache = liquid_parse._Cache()
    for number in range(400):
        cache.get(f"{number}" + "x" * 100_000, html=False)
    assert cache._size <= liquid_parse._CACHE
    assert 100 < len(cache._entries) < 400


def test_the_limits_of_arrays_and_variables_hold_at_their_border() -> None:
    assert render("{{ (1..10000) | size }}", any_event()) == str(MAX_ITEMS)
    assert parse_template("{{ a }}", False) is parse_template("{{ a }}", False)
    assert render(ARRAY + "{{ a | size }}", any_event()) == "4096"
    assert len(render(BIG + "{{ s }}", any_event())) == 131_072
