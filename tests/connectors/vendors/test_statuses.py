"""What a status proves: conservative, but for what is documented."""

from __future__ import annotations

import pytest

from connectors.vendors.open import VENDORS
from connectors.vendors.statuses import ANY_VENDOR, BY_VENDOR, meaning


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 599])
def test_no_5xx_of_braze_proves_that_nothing_was_sent(status: int) -> None:
    assert meaning("braze", status).kind == "unknown"


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 401, 402, 403, 404, 405, 407, 410, 421, 451, 499])
def test_what_is_about_the_account_or_the_address_rejects_nobody(status: int) -> None:
    assert {meaning(vendor, status).kind for vendor in VENDORS} == {"blocked"}


def test_only_what_is_about_the_content_rejects_and_one_recipient_may_be_the_cause() -> None:
    refusals = {
        status for status in range(100, 600) if status // 100 != 2 and meaning("braze", status).kind == "refused"
    }
    assert refusals == {400, 413, 422}
    assert all(meaning("braze", status).divisible for status in refusals)


def test_every_entry_has_a_reason_and_a_vendor_that_is_there() -> None:
    assert set(BY_VENDOR) <= set(VENDORS)
    assert all(one.why for table in (ANY_VENDOR, *BY_VENDOR.values()) for one in table.values())
