"""The commands of `campaigns`, each with its help, its arguments and the function that runs it."""

from __future__ import annotations

from runners.cli import commands
from runners.cli.arguments import CAMPAIGNS, JSON, KAFKA, LAUNCH, RECEIPTS, STRICT, Command, argument, repeated
from runners.cli.engines_command import ENGINES, engines
from runners.cli.events_command import EVENTS, events
from runners.cli.features.training_set_command import TRAINING_SET, training_set_command
from runners.cli.features_command import FEATURES, features
from runners.cli.ledger_command import LEDGER, ledger
from runners.cli.quarantine_command import QUARANTINE, quarantine
from runners.cli.template import TEMPLATE
from runners.cli.template import build as build_template
from runners.local.flink.command import FLINK, flink
from runners.sandbox.command import ARGUMENTS as SANDBOX
from runners.sandbox.command import sandbox

COMMANDS = {
    "preview": Command(
        "show what a launch of one campaign would do; nothing is published, no code is used",
        (
            argument("campaign", metavar="CAMPAIGN", help="id of the campaign"),
            CAMPAIGNS,
            argument(
                "--customers", required=True, help="Parquet, CSV, NDJSON, Avro (file, folder, glob) or bigquery:…"
            ),
            repeated("--history", help="earlier sends, for the caps: a table or OUTPUT of a launch; may be repeated"),
            argument("--sticky", help="sticky.parquet of an earlier launch"),
            argument("--samples", type=int, default=3, help="number of events to show (3)"),
            STRICT,
            JSON,
        ),
        commands.preview,
    ),
    "why": Command(
        "explain why a customer was or was not sent a campaign, with the values seen",
        (
            argument("customer", metavar="CUSTOMER", help="id of the customer"),
            argument("campaign", metavar="CAMPAIGN", help="id of the campaign"),
            argument("--launch", required=True, help="the --output folder of the launch"),
            RECEIPTS,
            JSON,
        ),
        commands.why,
    ),
    "check": Command(
        "check that each customer and event of a launch is accounted for, and splits are as weighted",
        (LAUNCH, RECEIPTS, JSON),
        commands.check,
    ),
    "report": Command("write report.html of a launch again, also while it runs", (LAUNCH, RECEIPTS), commands.report),
    "schema": Command(
        "list the columns of a source of customers",
        (argument("source", metavar="SOURCE", help="a file, folder, glob or bigquery:…"),),
        commands.schema,
    ),
    "json-schema": Command(
        "print the JSON Schema of a configuration file, for editors",
        (argument("kind", choices=("campaign", "engine", "audience")),),
        commands.json_schema,
    ),
    "validate": Command(
        "check a folder of campaigns, and its workspaces' urls, accounts and templates; with --customers also against "
        "their columns and retailers",
        (
            CAMPAIGNS,
            argument(
                "--customers",
                help="also check the conditions against these columns, and these retailers' accounts; "
                "warn of what matches nobody",
            ),
            STRICT,
            JSON,
        ),
        commands.validate,
    ),
    "replay": Command(
        "publish dead letters again, after their cause is corrected, or all events between two times",
        (
            argument(
                "source",
                metavar="SOURCE",
                help="folder with dead letters, such as OUTPUT/dead_letters; with --from the events' transport: "
                "file:DIR, pubsub:projects/P/subscriptions/S or kafka:HOST:PORT/TOPIC",
            ),
            argument(
                "--events",
                required=True,
                help="where to publish: file:DIR, pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC",
            ),
            argument("--from", dest="since", metavar="TIME", help="events from then on, such as 2026-04-01T09:00Z"),
            argument("--to", dest="until", metavar="TIME", help="events before then (now)"),
            argument("--ledger", help="the delivery's ledger; needed to send rejected events again"),
            repeated("--reason", help="only dead letters of this reason; may be repeated"),
            *KAFKA,
        ),
        commands.replay,
    ),
    "ledger": Command(
        "show a delivery's ledger, which holds the outcome of each event; cancel a campaign; settle or resend events "
        "whose outcome is unknown; rebuild a lost ledger",
        LEDGER,
        ledger,
    ),
    "events": Command(
        "list and describe the types of raw events, and validate files of them against their rules", EVENTS, events
    ),
    "features": Command(
        "list and describe features, fold events into them (run), serve them over HTTP and gRPC, show or erase those "
        "of an entity",
        FEATURES,
        features,
    ),
    "training-set": Command(
        "make a training set of labels and features as of their instants, or check served features against the log",
        TRAINING_SET,
        training_set_command,
    ),
    "quarantine": Command(
        "show the raw events that collect keeps aside, or read them again after their cause is corrected",
        QUARANTINE,
        quarantine,
    ),
    "template": Command("build a Flex Template of a pipeline for Dataflow; needs Docker", TEMPLATE, build_template),
    "engines": Command(
        "list the engines, brokers and emulators on this machine, and how to install those that are missing",
        ENGINES,
        engines,
    ),
    "flink": Command("run a Flink cluster on this machine, for --on flink, or stop a job on it", FLINK, flink),
    "sandbox": Command("simulate the vendor on this machine, with faults by script; nothing is sent", SANDBOX, sandbox),
    "topic": Command(
        "create a topic of Pub/Sub, which then accepts only our events, or of Kafka",
        (
            argument("action", choices=("create",)),
            argument("uri", metavar="URI", help="pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC"),
            argument("--subscription", help="pubsub: make this subscription too"),
            argument("--partitions", type=int, default=6, help="kafka: how many partitions (6)"),
            *KAFKA,
        ),
        commands.topic,
    ),
    "verify-code": Command(
        "check whether an offer code is genuine; the secret comes from the environment. Exit code 0: it is. 1: it is "
        "not. 2: the question is wrong (an unknown launch or offer, another secret, --customer without --retailer)",
        (
            argument("code", metavar="CODE", help="the code, as the customer has it"),
            argument("--launch", required=True, help="launch id, or the --output folder of the launch"),
            argument("--offer", required=True, help="id of the offer"),
            argument("--retailer", help="with --customer: whether the code is this customer's"),
            argument("--customer", help="with --retailer: whether the code is this customer's"),
            argument(
                "--secret-env",
                default="CAMPAIGNS_CODE_SECRET",
                help="the variable that holds the secret (CAMPAIGNS_CODE_SECRET)",
            ),
        ),
        commands.verify_code,
    ),
}
