"""The secret from which a launch derives unique offer codes."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable

from connectors.secrets import Secrets
from pipelines.engines.dataflow.checks import needs_secrets
from schemas.campaigns.campaign import Campaign
from schemas.problems import Problem
from transforms.launch_plan import Plan

MIN_SECRET = 16


def code_secret(name: str, project: str | None = None) -> bytes:
    """The secret of the offer codes, from the environment or from a project's Secret Manager."""
    return (os.environ.get(name, "") or Secrets(project)(name)).encode()


def secret_digest(secret: bytes) -> str | None:
    """A keyed hash of the secret for the manifest: it tells two secrets apart, and none can be found from it."""
    return hmac.new(secret, b"campaigns manifest", hashlib.sha256).hexdigest()[:12] if secret else None


def needs_code_secret(campaigns: Iterable[Campaign]) -> bool:
    """Whether there are offers whose codes are derived from the secret."""
    return any(offer.kind == "unique_code" for campaign in campaigns for offer in campaign.offers)


def secret_problems(plan: Plan, project: str | None, *, remote: bool) -> list[Problem]:
    """A problem when the secret is needed and is missing or too short, or when remote workers could not read it."""
    if not needs_code_secret(entry.campaign for entry in plan.campaigns):
        return []
    if remote and (problems := needs_secrets(project, keys=True)):
        return problems
    if len(code_secret(plan.engine.code_secret, project)) >= MIN_SECRET:
        return []
    fix = f"set it to a secret of {MIN_SECRET} characters or more; the unique codes are derived from it"
    return [Problem("environment", plan.engine.code_secret, "missing or too short", fix)]
