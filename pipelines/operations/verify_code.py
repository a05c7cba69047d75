"""Verify an offer code: genuine or not, after the launch, the offer and the secret were checked."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from connectors.gcs import is_remote
from pipelines.command_line.parse import did_you_mean
from pipelines.launch.code_secret import secret_digest
from pipelines.launch.inputs import launched_campaigns
from schemas.problems import InputError, Problem
from stores.launches.launch_folder import LaunchFolder
from transforms.offers.codes import verify_code, verify_for_customer, well_formed

_LAUNCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CodeCheck(msgspec.Struct):
    """Whether a code is genuine; whether any launch could have such a code; and whether the launch, the offer and the
    secret were checked (not when only the launch's id is given)."""

    code: str
    launch_id: str
    genuine: bool
    well_formed: bool
    launch_checked: bool


def verify(
    code: str, launch: str, offer: str, secret_env: str, retailer: str | None = None, customer: str | None = None
) -> CodeCheck:
    """Verify a code of an offer, or of one customer's offer. `launch` is a folder or an id; `secret_env` names the
    variable with the secret.

    Raises InputError when no code could be genuine: an unknown launch or offer, another secret than the launch's.
    """
    problems: list[Problem] = []
    if bool(customer) != bool(retailer):
        missing, other = ("--retailer", "--customer") if customer else ("--customer", "--retailer")
        fix = f"is needed with {other}: a customer's id is unique only within a retailer"
        problems.append(Problem("command line", missing, "missing", fix))
    secret = os.environ.get(secret_env, "").encode()
    if not secret:
        problems.append(Problem("environment", secret_env, "missing", "set it to the secret that the launch had"))
    checked_id = _check_launch(launch, offer, secret, secret_env, problems)
    if problems:
        raise InputError(problems)
    launch_id = checked_id or launch
    if customer and retailer:
        genuine = verify_for_customer(secret, code, launch_id, offer, retailer, customer)
    else:
        genuine = verify_code(secret, code, launch_id, offer)
    return CodeCheck(code, launch_id, genuine, well_formed(code), checked_id is not None)


def _check_launch(launch: str, offer: str, secret: bytes, secret_env: str, problems: list[Problem]) -> str | None:
    """The id of the launch in a folder, after its offer and secret were checked; None where `launch` is an id, which
    cannot be checked."""
    if not Path(launch).exists() and not is_remote(launch) and _LAUNCH_ID.fullmatch(launch):
        return None
    folder = LaunchFolder(launch)
    if folder.remote is not None:
        folder.remote.pull()
    try:
        manifest, configuration = launched_campaigns(folder)
    except InputError as error:
        problems += error.problems
        return None
    kinds = {offer.id: offer.kind for campaign in configuration.campaigns for offer in campaign.offers}
    unique = sorted(name for name, kind in kinds.items() if kind == "unique_code")
    if offer not in unique:
        known = f"this launch has these offers with unique codes: {', '.join(unique) or 'none'}"
        why = f"its codes are not derived ({kinds[offer]}); " if offer in kinds else ""
        fix = f"{why or did_you_mean(offer, unique)}{known}"
        problems.append(Problem("command line", "--offer", offer, fix))
    digest = manifest["inputs"].get("code_secret")
    if secret and digest and secret_digest(secret) != digest:
        fix = "is not the secret that the launch was started with: set it to that one"
        problems.append(Problem("environment", secret_env, "another secret", fix))
    return str(manifest["launch_id"])
