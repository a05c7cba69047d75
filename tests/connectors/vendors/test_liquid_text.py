"""Retailers' Liquid: what renders, what is refused, and what no template can do."""

from __future__ import annotations

from typing import Any

import pytest
from support.vendor_calls import any_event

from connectors.vendors.liquid_parse import check_template
from connectors.vendors.liquid_text import TemplateError, render, render_all


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Hello {{ first_name }}!", "Hello Name 0!"),
        ("{{ customer_id }} of {{ retailer_id }} at {{ recipient }}", "cust-0 of store-1 at c0@example.com"),
        ("{{ offers[0].code }} {{ offers[0].value }} {{ offers[0].currency }}", "TEN 10.00 USD"),
        ("until {{ offers[0].expires_at | date: '%H:%M' }}", "until 01:00"),
        ("{% for offer in offers %}{{ offer.code }};{% endfor %}", "TEN;"),
        ("{% if vip %}Dear {% endif %}{{ variant }}/{{ experiment }}", "Dear a/split"),
        ("[{{ nobody }}{{ nobody.knows[3].this }}{{ town }}]", "[]"),
        ("{{ nobody | default: 'friend' }}", "friend"),
        ("{{ visits | plus: 1 }} {{ score }}", "4 0.5"),
        ("{{ first_name | replace: 'Name', 'Number' }}", "Number 0"),
        ("", ""),
    ],
)
def test_a_template_renders_what_the_event_says(text: str, made: str) -> None:
    assert check_template(text) == []
    assert render(text, any_event()) == made


@pytest.mark.parametrize(
    ("channel", "made"), [("email", "&lt;b&gt; &amp; &#39;x&#39;"), ("sms", "<b> & 'x'"), ("push", "<b> & 'x'")]
)
def test_values_are_escaped_in_an_email_only(channel: str, made: str) -> None:
    event = any_event(channel=channel, properties={"name": "<b> & 'x'"})
    assert render("<p>{{ name }}</p>", event) == f"<p>{made}</p>"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fine\nand {% bogus %}", "line 2: "),
        ("a\nb\n{% if x %}", "line 3: "),
        ("{{ x | }}", "line 1: "),
        ("a\n{{ first_name | shout }}", "line 2: unknown filter 'shout'"),
        ("{% include 'other' %}", "line 1: "),
        ("{% render 'other' %}", "line 1: "),
        ("{% if a %}" * 100 + "{% endif %}" * 100, ""),
        ("{{ a", "line 1: "),
    ],
)
def test_a_wrong_template_is_reported_with_its_line(text: str, problem: str) -> None:
    (mistake,) = check_template(text)
    assert str(mistake).startswith(problem)
    assert "\n" not in mistake.words
    with pytest.raises(TemplateError):
        render(text, any_event())


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in (1..100000) %}x{% endfor %}",
        "{% for i in (1..1000) %}{% for j in (1..1000) %}x{% endfor %}{% endfor %}",
        "{% assign x = 'xxxxxxxxxx' %}" + "{% assign x = x | append: x %}" * 40 + "{{ x }}",
        "{% for i in (1..9000) %}" + "x" * 1000 + "{% endfor %}",
        "{% assign x = first_name | replace: '', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy' %}"
        + "{% assign x = x | replace: 'y', x %}" * 5,
        "{% assign n = 99999 %}{% for i in (1..60) %}{% assign n = n | times: n %}{% endfor %}{{ n }}",
        "{{ visits | divided_by: 0 }}",
        "{{ first_name | shout }}",
        "{{ 1 | date: '%s%s', 3, 4 }}",
    ],
    ids=["loop", "nested loops", "append", "output", "replace", "number", "zero", "filter", "arguments"],
)
def test_a_template_cannot_run_away(text: str) -> None:
    with pytest.raises(TemplateError):
        render(text, any_event())


def test_a_property_cannot_take_the_place_of_the_launchs_own_names() -> None:
    event = any_event(properties={"event_id": "mine", "customer_id": "mine", "offers": "mine"})
    assert render("{{ event_id }} {{ customer_id }} {{ offers[0].id }}", event).split()[1:] == ["cust-0", "ten"]


def test_only_events_with_a_template_of_the_retailers_have_a_text() -> None:
    events: list[dict[str, Any]] = [any_event(template=name) for name in ("mine", None, "plain", "odd")]
    made = render_all({"mine": "Hi", "odd": "{{ a | shout }}"}, events)
    assert made.texts == {0: "Hi", 1: None, 2: None}
    assert made.broken == {3: "template_error"}
    assert made.words == "template odd: line 1: unknown filter 'shout'"
