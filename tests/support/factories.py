"""Small, sound things that a test changes: `any_campaign(channel="sms")`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SECRET = "a secret for tests only"
os.environ.setdefault("CAMPAIGNS_CODE_SECRET", SECRET)


def any_engine(**changes: Any) -> dict[str, Any]:
    """engine.yaml as data."""
    return {
        "channels": {"email": {"address": "email", "consent": "email_consent"}, "sms": {"address": "phone"}},
        "retailers": {"*": {"time_zone": "America/New_York"}},
        **changes,
    }


def any_campaign(**changes: Any) -> dict[str, Any]:
    """A campaign file as data: everyone with a spend, an even split."""
    return {
        "id": "welcome",
        "surface": "storefront",
        "channel": "email",
        "audience": "spend >= 0",
        "experiment": {"key": "welcome-split", "variants": [{"key": "a"}, {"key": "b"}]},
        "content": {"template": "plain", "properties": {"name": "first_name"}},
        **changes,
    }


def any_folder(
    root: Path,
    *campaigns: dict[str, Any],
    engine: dict[str, Any] | None = None,
    audiences: dict[str, Any] | None = None,
    lists: dict[str, str] | None = None,
) -> Path:
    """A folder of campaigns as a user would write it."""
    (root / "audiences").mkdir(parents=True, exist_ok=True)
    (root / "lists").mkdir(exist_ok=True)
    (root / "engine.yaml").write_text(yaml.safe_dump(engine or any_engine()))
    for campaign in campaigns or (any_campaign(),):
        (root / f"{campaign['id']}.yaml").write_text(yaml.safe_dump(campaign, allow_unicode=True))
    for name, node in (audiences or {}).items():
        (root / "audiences" / f"{name}.yaml").write_text(yaml.safe_dump({"audience": node}))
    for name, text in (lists or {}).items():
        (root / "lists" / name).write_text(text)
    return root


def any_customers(number: int = 10, **changes: Any) -> pa.Table:
    """Customers of three retailers; a change replaces a column, with a list or with a function of the number."""
    columns: dict[str, Any] = {
        "customer_id": lambda n: f"c-{n}",
        "retailer_id": lambda n: f"store-{n % 3}",
        "household": lambda n: n // 2,
        "first_name": lambda n: None if n % 7 == 3 else f"Name {n}",
        "email": lambda n: f"c{n}@example.com",
        "phone": lambda n: f"+1555{n:07d}",
        "email_consent": lambda n: True,
        "spend": lambda n: float(n % 100),
        "orders": lambda n: n % 13,
        **changes,
    }
    return pa.table(
        {name: [make(n) for n in range(number)] if callable(make) else make for name, make in columns.items()}
    )


def any_customer_file(path: Path, number: int = 10, **changes: Any) -> Path:
    """The same as a Parquet file with several row groups."""
    pq.write_table(any_customers(number, **changes), path, row_group_size=max(1, number // 3))
    return path
