"""The command `campaigns verify-code`: whether a code is genuine, once it is sure that the question is right."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from connectors.gcs import is_remote
from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.command_line.words import did_you_mean
from pipelines.launch.inputs import launched_campaigns, secret_digest
from schemas.problems import InputError, Problem
from stores.launches.launch_folder import LaunchFolder
from transforms.offers.codes import verify_code, verify_for_customer, well_formed

_LAUNCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def verify(args: argparse.Namespace) -> int:
    """Says whether a code is genuine; 1 if it is not. Raises InputError when it could not be, whatever the code: an
    unknown launch or offer, another secret than the launch's."""
    problems: list[Problem] = []
    if bool(args.customer) != bool(args.retailer):
        missing, given = ("--retailer", "--customer") if args.customer else ("--customer", "--retailer")
        problems.append(
            _problem(missing, "missing", f"is needed with {given}: a customer's id is unique only within a retailer")
        )
    secret = os.environ.get(args.secret_env, "").encode()
    if not secret:
        problems.append(Problem("environment", args.secret_env, "missing", "set it to the secret that the launch had"))
    known = _launch(args, secret, problems)
    if problems:
        raise InputError(problems)
    launch_id = known or args.launch
    if args.customer:
        genuine = verify_for_customer(secret, args.code, launch_id, args.offer, args.retailer, args.customer)
        told = f"{'is' if genuine else 'is not'} the code of {args.customer} of {args.retailer}"
    else:
        genuine = verify_code(secret, args.code, launch_id, args.offer)
        told = f"{'genuine' if genuine else 'not genuine'} for the offer {args.offer} of launch {launch_id}"
    print(f"{args.code}: {told}")
    if not genuine and not well_formed(args.code):
        print("no launch has such a code: a character is wrong or missing, so check how it was typed")
    elif not genuine and known is None:
        print("the launch, the offer or the secret may be wrong too: give the launch's folder as --launch to find out")
    return EXIT_CODES[Ending.DONE if genuine else Ending.CHECK_FAILED]


def _launch(args: argparse.Namespace, secret: bytes, problems: list[Problem]) -> str | None:
    """The id of the launch in a folder, its offer and secret checked; None where --launch is an id, about which
    nothing is known here."""
    if not Path(args.launch).exists() and not is_remote(args.launch) and _LAUNCH_ID.fullmatch(args.launch):
        return None
    folder = LaunchFolder(args.launch)
    if folder.remote is not None:
        folder.remote.pull()
    try:
        manifest, configuration = launched_campaigns(folder)
    except InputError as error:
        problems += error.problems
        return None
    offers = {offer.id: offer.kind for one in configuration.campaigns for offer in one.offers}
    codes = sorted(name for name, kind in offers.items() if kind == "unique_code")
    if args.offer not in codes:
        has = f"this launch has these offers with unique codes: {', '.join(codes) or 'none'}"
        what = f"its codes are not derived ({offers[args.offer]}); " if args.offer in offers else ""
        problems.append(_problem("--offer", args.offer, f"{what or did_you_mean(args.offer, codes)}{has}"))
    digest = manifest["inputs"].get("code_secret")
    if secret and digest and secret_digest(secret) != digest:
        fix = "is not the secret that the launch was started with: set it to that one"
        problems.append(Problem("environment", args.secret_env, "another secret", fix))
    return str(manifest["launch_id"])


def _problem(name: str, value: str, fix: str) -> Problem:
    return Problem("command line", name, value, fix)
