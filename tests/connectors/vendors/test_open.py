"""Vendors by name."""

from __future__ import annotations

import pickle
from typing import get_args

import pytest

from connectors.vendors.open import VENDORS, make_vendor
from schemas.campaigns.workspaces import Delivery

NAMES = get_args(Delivery.model_fields["vendor"].annotation)


@pytest.mark.parametrize("name", NAMES)
def test_every_vendor_of_the_configuration_can_be_made_and_pickled(name: str) -> None:
    vendor = pickle.loads(pickle.dumps(make_vendor(name)))
    assert vendor.name == name
    vendor.close()
    vendor.open()
    vendor.close()
    vendor.close()


def test_no_other_name_is_known() -> None:
    assert set(VENDORS) == set(NAMES)
    with pytest.raises(ValueError, match="none of braze, webhook, outbox"):
        make_vendor("pigeon")
