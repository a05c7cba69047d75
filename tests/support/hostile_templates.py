"""Hostile Liquid: templates that want all memory and all time, and a process with little of both that renders them."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

MEMORY = 320 << 20  # bytes that the process may address beyond what it has when the library is loaded
CPU_S = 300  # a process that never ends is killed by this

BIG = "{% assign s = 'xxxxxxxxxxxxxxxx' %}" + "{% assign s = s | append: s %}" * 13  # 128 kB
ARRAY = "{% assign s = 'a,a,a,a,a,a,a,a' %}" + "{% assign s = s | append: ',' | append: s %}" * 9  # 4,096 items
ARRAY += "{% assign a = s | split: ',' %}"

HOSTILE = [
    '{{ (1..100000000) | join: "xxxxxxxx" }}',
    "{{ (1..100000000) | reverse }}",
    "{{ (1..9223372036854775807) | sort }}",
    "{% for i in (1..100000000) reversed %}{% endfor %}",
    "{% for i in (1..100000000) offset: 99999999 %}{% endfor %}",
    "{% tablerow i in (1..100000000) %}{% endtablerow %}",
    "{% if (1..9999999999999) contains 'x' %}{% endif %}",
    "{% assign n = 10 %}{% for i in (1..9) %}{% assign n = n | times: 10 %}{% endfor %}{{ (1..n) | join }}",
    "{% for i in (1..10000) %}{% endfor %}" * 4000,
    "{% for i in (1..100) %}{% for j in (1..100) %}{% endfor %}{% for j in (1..100) %}{% endfor %}{% endfor %}" * 900,
    "{% for i in (1..9999) %}{% if (1..9999) contains 'x' or (1..9999) contains 'y' %}{% endif %}{% endfor %}",
    BIG + "{% for i in (1..9999) %}{% if s contains 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy' %}{% endif %}{% endfor %}",
    BIG + "{% for i in (1..9999) %}{% assign t = s | replace: 'xxxxxxxxxxxxxxxxxxxxxxy', '' %}{% endfor %}",
    BIG + "{% for i in (1..9999) %}{% capture t %}{{ s }}{% endcapture %}{% endfor %}",
    BIG + "{% for i in (1..9999) %}{% ifchanged %}{{ s }}{{ i }}{% endifchanged %}{% endfor %}",
    BIG + "{% for i in (1..9999) %}{% cycle s, i %}{% endfor %}",
    BIG + "{% cycle " + "s, " * 2500 + "s %}",
    BIG + "{% for i in (1..9999) %}{{ a[s][s] }}{% endfor %}",
    BIG + "{{ s | replace: '', s }}",
    BIG + "{{ s | replace: 'x', s }}",
    BIG + "{{ s | split: '' }}",
    BIG + "{{ s | split: '' | join: s }}",
    BIG + "{{ s | upcase | url_encode | url_encode | url_encode }}",
    BIG + "{% assign h = s | replace: 'x', '<' %}{{ h | escape }}{{ h | strip_html }}",
    BIG + "{% assign h = s | replace: 'xx', '<!' %}{% for i in (1..9999) %}{% assign t = h | strip_html %}{% endfor %}",
    BIG + "{% assign h = s | slice: 0, 9000 | replace: 'x', '<script>' %}{{ h | strip_html }}",
    BIG
    + "{% for i in (1..9999) %}{% assign v"
    + "x = s %}{% assign w".join(map(str, range(50)))
    + " = s %}{% endfor %}",
    ARRAY + "{% assign a = a | concat: a %}" * 40 + "{{ a | size }}",
    ARRAY + "{{ a | join: s }}",
    ARRAY + "{% for i in (1..9999) %}{% assign b = a | uniq %}{% endfor %}",
    ARRAY + "{% for i in (1..9999) %}{% assign b = a | sort | reverse | sort_natural %}{% endfor %}",
    ARRAY + "{% for i in (1..9999) %}{{ a }}{% endfor %}",
    ARRAY + "{% for i in (1..9999) %}{% assign b = a | where: s, s | map: s %}{% endfor %}",
    ARRAY + "{% for i in (1..9999) %}{% if a == a and a contains s %}{% endif %}{% endfor %}",
    BIG + "{% assign a = s | split: 'y' %}" + "{% assign a = a | concat: a %}" * 12 + "{{ a }}",
    "{% assign n = 99999 %}{% for i in (1..60) %}{% assign n = n | times: n %}{% endfor %}{{ n }}",
    "{% assign n = '1e308' | times: 1 %}{{ n | times: n | ceil }}",
    "{{ '" + "9" * 4000 + "' | times: 1 | plus: 1 }}",
    "{{ 1 | round: 99999999999999999999 }}",
    "{{ 1.5 | round: 99999999999999999999 }}",
    "{{ 'now' | date: '%999999999d' }}",
    "{{ 'now' | date: '%-_0999999999Y' }}",
    "{{ 'now' | date: '" + "%c" * 3000 + "' }}",
    BIG + "{{ s | date: '%Y' }}{{ 'now' | date: s }}",
    "{% increment a %}" * 4999,
    "{% case 1 %}{% when "
    + "1, " * 2000
    + "1 %}"
    + "{% case 1 %}{% when "
    + "1, " * 2000
    + "1 %}x{% endcase %}{% endcase %}",
    "{% if a %}" * 100 + "{% endif %}" * 100,
    "{{ a" + "[a" * 190 + "]" * 190 + " }}",
    "{{ a" + "[a" * 3000 + "]" * 3000 + " }}",
    "{% if " + "(" * 7000 + " %}",
    "{% if a " + "and a " * 1300 + "%}{% endif %}",
    "{{ " + "a | append: " * 600 + "a }}",
    "{% comment %}" + "{% raw %}" * 20_000,
    "{% comment %}" + "{% doc %}" * 20_000,
    "{% comment %}" + "{% , {% raw %}" * 15_000,
    "{% a" + " " * 200_000,
    "{% a" + " " * 7_000 + "%}",
    "{{" * 100_000,
    "{%" * 100_000,
    "{% liquid\n" + "assign a = 1\n" * 500 + "%}",
    "{% liquid " + " " * 190 + "\n" * 5000 + " %}",
    '{{ a["' + '["' * 3000 + " }}",
    "x" * 300_000,
    "{{ a }}" * 30_000,
]

_VALUES = [
    "s",
    "a",
    "n",
    "(1..9999)",
    "(1..n)",
    "'x'",
    "''",
    "9",
    "0.5",
    "nobody",
    "first_name",
    "offers",
    "nil",
    "i",
    "forloop",
]
_TAGS = [
    "{{% assign {v} = {e} %}}", "{{{{ {e} }}}}", "{{% capture {v} %}}{b}{{% endcapture %}}", "{{% cycle {x}, {y} %}}",
    "{{% for i in {x} %}}{b}{{% endfor %}}", "{{% if {x} contains {y} %}}{b}{{% endif %}}", "{{% echo {e} %}}",
    "{{% tablerow i in {x} cols: {y} %}}{b}{{% endtablerow %}}", "{{% ifchanged %}}{b}{{% endifchanged %}}",
    "{{% case {x} %}}{{% when {y}, {x} %}}{b}{{% endcase %}}", "{{% unless {x} == {y} %}}{b}{{% endunless %}}",
    "{{% for i in {x} reversed limit: {y} %}}{b}{{% endfor %}}", "{{% increment {v} %}}", "{{% break %}}",
]  # fmt: skip


def any_template(seed: int, filters: list[str]) -> str:
    """A template made by chance that tends to make things bigger."""
    draw = random.Random(seed)

    def expression() -> str:
        parts = [draw.choice(_VALUES)]
        for _ in range(draw.randrange(4)):
            arguments = ", ".join(draw.choices(_VALUES, k=draw.choice((0, 1, 1, 2))))
            parts.append(draw.choice(filters) + (f": {arguments}" if arguments else ""))
        return " | ".join(parts)

    def block(depth: int) -> str:
        made = ""
        for _ in range(draw.randrange(1, 5)):
            tag = draw.choice(_TAGS)
            body = block(depth - 1) if depth and "{b}" in tag else "x"
            name, one, other = draw.choice("sanbc"), draw.choice(_VALUES), draw.choice(_VALUES)
            made += tag.format(v=name, e=expression(), b=body, x=one, y=other)
        return made

    return draw.choice(("", BIG, ARRAY)) + block(4) * draw.choice((1, 1, 50))


def render_all(seeds: range) -> tuple[int, int]:
    """How many of the hostile templates, and of those made by chance, were rendered and refused; as an e-mail and not."""
    from support.vendor_calls import any_event

    from connectors.vendors.liquid_filters import FILTERS
    from connectors.vendors.liquid_parse import check_template
    from connectors.vendors.liquid_text import TemplateError, render

    render("warm {{ 'now' | date: '%Y' }}", any_event())
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    rendered = refused = 0
    for text in [*HOSTILE, *(any_template(seed, sorted(FILTERS)) for seed in seeds)]:
        check_template(text)
        for channel in ("email", "sms"):
            try:
                render(text, any_event(channel=channel))
                rendered += 1
            except TemplateError as error:
                if "MemoryError" in str(error) or not str(error).startswith("line "):
                    raise RuntimeError(f"{text[:200]} … {error}") from error
                refused += 1
    return rendered, refused


def render_all_elsewhere(first: int, last: int) -> str:
    """The same in a process with little memory: its output, or what it died of."""
    paths = ":".join(str(path) for path in (Path(__file__).parents[1], Path(__file__).parents[2]))
    code = f"from support.hostile_templates import render_all; print(*render_all(range({first}, {last})))"
    environment = {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-2000:]}"
