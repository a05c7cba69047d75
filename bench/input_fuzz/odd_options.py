"""What can be wrong on the command line, and with a folder of an earlier run."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.input_fuzz.customers import Draw, chance, one_of
from bench.input_fuzz.inputs import Inputs

MISTYPED = (
    "--tset", "--histroy=history.parquet", "--stciky=x", "stray", "--on=drect", "--on=", "--launch-id=x", "--lunch_id=x", "--batchrows=5", "--nope",
    "--nope=1", "-x", "--on=direct=1", "--Test", "—test", "--samples_=3", "--kafka_nope=1", "--output", "--runner=Nope", "--campaign_=x", "-test",
)  # fmt: skip
VALUES: dict[str, tuple[str, ...]] = {
    "--launch_id": ("", " ", "a b", "../x", "-x", "é", "x" * 65, "a/b", "a\nb", ".", "..", "*", "'"),
    "--batch_rows": ("0", "-1", "abc", "1.5", "", "9" * 30, "9" * 5_000, "1e3", " 5", "٣", "nan"),
    "--broker_wait": ("0", "-1", "nan", "inf", "abc", "", "1e400", "1e300"),
    "--output": ("", "campaigns", "customers.file", "campaigns/engine.yaml/out", "a\nb", "-x", "x" * 300, "/dev/null", "/proc/nobody", "out/../out", "öut ü", ".", "s3://b/x"),
    "--events": ("", "file:", "events", "file:customers.file", "file:campaigns/engine.yaml/x", "pubsub:x", "pubsub:projects/p/subscriptions/s",
                 "kafka:x", "kafka://", "kafka:localhost:99999/t", "kafka:localhost:1/", "file:/dev/null", "nope:x", "file:a\nb", "file:out", "file:out/exposures", "file:campaigns", "FILE:events", "http://x"),
    "--campaigns": ("", "nowhere", "campaigns/engine.yaml", "/dev/null", "customers.file", "a\nb", "*", "campaigns/audiences", "/root/nowhere"),
    "--customers": ("", "nowhere.csv", "campaigns", "/dev/null", "/dev/zero", "bigquery:", "bigquery:x", "a\nb.csv", "[", "x" * 5_000, "-", "/proc/self/environ", "http://x/y.csv", "."),
    "--history": ("", "nowhere", "/dev/null", "campaigns", "campaigns/engine.yaml", "."),
    "--sticky": ("nowhere", "/dev/null", "campaigns", "campaigns/engine.yaml", "."),
    "--secrets": ("x", "projects/", "projects/a b"),
    "--on": ("drect", "", "Direct", "direct,prism"),
}  # fmt: skip
_MAY = {
    ("--output", "out/../out"), ("--output", "öut ü"), ("--output", "a\nb"), ("--output", "-x"), ("--output", "."), ("--output", "campaigns"), ("--output", "x" * 300),
    ("--events", "file:out"), ("--events", "file:a\nb"), ("--events", "file:campaigns"), ("--events", "file:out/exposures"), ("--batch_rows", " 5"),
    ("--batch_rows", "٣"), ("--batch_rows", "9" * 30), ("--broker_wait", "1e300"), ("--history", ""), ("--broker_wait", "inf"), ("--customers", "campaigns"),
}  # fmt: skip
_MACHINE = ("campaigns/engine.yaml/", "/dev/", "/proc/", "customers.file", "x" * 300)
"""What stands in the way of a file may be told as what the machine refuses."""


def mistyped(draw: Draw, inputs: Inputs) -> None:
    """An option that nobody knows, or a word too many."""
    word = one_of(draw, *MISTYPED)
    inputs.more.append(word)
    inputs.must = 2
    inputs.bad[-1] += f" ({word})"


def odd_value(draw: Draw, inputs: Inputs) -> None:
    """An option whose value cannot be meant."""
    option = one_of(draw, *VALUES)
    value = one_of(draw, *VALUES[option])
    inputs.options[option] = [value]
    inputs.other["customers.file"] = b"x"
    inputs.bad[-1] += f" ({option}={value[:40]!r})"
    inputs.must = None if (option, value) in _MAY else 2
    if option in ("--output", "--events"):
        name = value.removeprefix("file:")
        inputs.outputs.add(name)
        inputs.machine = inputs.machine or any(one in value for one in _MACHINE) or name in (".", "campaigns")
        inputs.must = None if inputs.machine else inputs.must
        inputs.commands = [one for one in inputs.commands if one not in ("check", "report", "why")]
        if name in (".", "campaigns", "öut ü", "out/../out") or "\n" in name:
            inputs.outputs |= {"campaigns", "a\nb"} if name == "campaigns" else {name}
    if option == "--customers":
        inputs.facts.rows = inputs.facts.customers = None
    if option == "--campaigns":
        inputs.facts.never.clear()
        inputs.facts.never_of.clear()


def strict(draw: Draw, inputs: Inputs) -> None:
    """Warnings are mistakes: whatever is odd in the sound part is refused, and said as a mistake is."""
    if chance(draw):
        inputs.engine["strict"] = True
    else:
        inputs.more.append("--strict")


def lost_option(draw: Draw, inputs: Inputs) -> None:
    """An option that must be given is not."""
    inputs.options.pop(one_of(draw, "--campaigns", "--customers", "--events", "--output"), None)
    inputs.commands = ["launch"]
    inputs.must = 2


def _json(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def _folder(path: Path) -> None:
    _gone(path)
    path.mkdir()


def _gone(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


CHANGES: dict[str, Callable[[Path], object]] = {
    "gone": _gone,
    "empty": lambda path: path.write_bytes(b""),
    "broken off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": _folder,
    "an empty object": lambda path: path.write_text("{}"),
    "an array": lambda path: path.write_text("[1]"),
    "text": lambda path: path.write_text("hello\n"),
    "a key less": _json(lambda data: dict(list(data.items())[1:])),
    "the last key less": _json(lambda data: dict(list(data.items())[:-1])),
    "numbers": _json(lambda data: dict.fromkeys(data, 1)),
    "nothing in it": _json(lambda data: dict.fromkeys(data)),
}
PLACES = (
    "manifest.json", "manifest.json", "summary.json", "exposures/*", "exposures", "dead_letters", "survey/*", "survey", "snapshot/*", "snapshot",
    "campaigns/engine.yaml", "campaigns", "sticky.parquet", "report.html", "../events/*", "../events", ".lock", "../out",
)  # fmt: skip


def damaged(draw: Draw, inputs: Inputs) -> None:
    """A launch whose folder was changed before it is resumed, checked or asked about."""
    place, kind = one_of(draw, *PLACES), one_of(draw, *CHANGES)

    def damage(folder: Path) -> None:
        output = folder / inputs.options.get("--output", ["out"])[0]
        if not output.is_dir():
            return
        for path in sorted(output.glob(place))[:1]:
            # A folder is not written to, a file of no JSON has no keys: nothing is damaged then.
            with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                CHANGES[kind](path)

    inputs.damage.append(damage)
    inputs.outputs |= {"out", "events"}
    inputs.commands = ["launch", one_of(draw, "launch", "check", "report", "why", "verify-code"), "launch"]
    inputs.bad[-1] += f" ({place} {kind})"
    inputs.machine = (
        inputs.machine
        or kind == "a folder"
        or (kind in ("text", "empty", "zeros") and place in ("../out", "../events"))
    )


def odd_question(draw: Draw, inputs: Inputs) -> None:
    """Questions about what is not there."""
    inputs.commands = ["launch", one_of(draw, "why", "verify-code", "check", "report")]
    if chance(draw):
        inputs.asked = "nobody"
        inputs.facts.rows = None
        inputs.commands = ["validate", "why"]
    else:
        inputs.commands = [one_of(draw, "why", "verify-code", "check", "report")]


FAULTS: dict[str, Callable[[Draw, Inputs], None]] = {
    "a mistyped option": mistyped, "an odd option": odd_value, "an odd option too": odd_value, "a lost option": lost_option,
    "a damaged launch": damaged, "a damaged launch too": damaged, "an odd question": odd_question, "strict": strict,
}  # fmt: skip
