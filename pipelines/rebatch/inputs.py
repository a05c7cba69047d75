"""Read and check the inputs of rebatch before it runs."""

from __future__ import annotations

from pathlib import Path

from connectors.gcs import RemoteFolder, is_remote
from connectors.secrets import Secrets
from pipelines.rebatch.delivery_files import check_delivery
from pipelines.rebatch.options import RebatchConfig
from pipelines.rebatch.settings import Settings
from schemas.campaigns.accounts import configured_retailers
from schemas.campaigns.configuration import load_configuration
from schemas.problems import InputError
from stores.deliveries.delivery_folder import DeliveryFolder


def make_settings(config: RebatchConfig) -> Settings:
    """The live settings of the campaigns' folder."""
    outbox = f"{DeliveryFolder(config.output).outbox}/{{retailer}}"
    return Settings(config.campaigns, outbox=outbox, secrets=Secrets(config.secrets))


def check_inputs(config: RebatchConfig, secrets: Secrets) -> bool:
    """Checks the campaigns' folder and the workspaces' keys; whether the vendor needs keys. Raises InputError with
    every mistake."""
    root = RemoteFolder(config.campaigns).pull() if is_remote(config.campaigns) else Path(config.campaigns)
    loaded, problems = load_configuration(root)
    if loaded is not None:
        problems += check_delivery(root, loaded.engine, configured_retailers(loaded.engine), secrets)
    if problems or loaded is None:
        raise InputError(problems)
    return loaded.engine.delivery.vendor != "outbox"
