import pyarrow as pa
import pytest

from transforms.audience.conditions import Checker, open_connection

SCHEMA = pa.schema(
    [("spend", pa.float64()), ("name", pa.string()), ("departments", pa.list_(pa.string())), ("seen", pa.timestamp("us")),
     ("ok", pa.bool_()), ("odd name", pa.int64())]
)  # fmt: skip


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker(SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "spend > 3 AND name IN ('a', 'b')",
        "list_contains(departments, 'DAIRY')",
        "seen > launched_at - INTERVAL 30 DAY",
        "CASE WHEN ok THEN spend > 1 ELSE spend > 2 END",
        "name ILIKE 'a%' OR name SIMILAR TO '[a-z]+'",
        '"odd name" BETWEEN 1 AND 3',
        "-- why\nspend > 1 -- and here",
        "coalesce(spend, 0) > 1 AND NOT ok",
        "CAST(name AS INTEGER) > 3",
        "NULL",
        " OR ".join(["spend > 1"] * 900),
        " + ".join(["spend"] * 150) + " > 1",
    ],
)
def test_a_scalar_condition_over_the_columns_is_sound(checker: Checker, text: str) -> None:
    assert checker.check(text, "BOOLEAN") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("spend > ", "not an SQL expression"),
        ("NOT " * 400 + "ok", "nested too deeply"),
        ("NOT " * 900 + "ok", "nested too deeply"),
        ("spnd > 3", "did you mean spend"),
        ("name > 3", "Cannot compare"),
        ("name IN (SELECT 'a')", "sub-query"),
        ("spend = ANY([1, 2])", "sub-query"),
        ("EXISTS (SELECT 1)", "sub-query"),
        ("spend > 1) FROM customers --", "not an SQL expression"),
        ("spend > 1; DROP TABLE customers", "not an SQL expression"),
        ("ok) , (ok", "one expression"),
        ("ok) ORDER BY (1", "one expression"),
        ("spend > 3) OR (1=1", "not an SQL expression"),
        ("ok) -- (", "not an SQL expression"),
        ("ok) LIMIT (1", "one expression"),
        ("ok) UNION SELECT (true", "one expression"),
        ("ok) WHERE (ok", "one expression"),
        ("ok) QUALIFY (ok", "one expression"),
        ("sum(spend) > 1", "function sum is not allowed"),
        ("row_number() OVER () > 1", "window function"),
        ("unnest([1, 2]) > 1", "not allowed"),
        ("getenv('HOME') = 'x'", "not allowed"),
        ("current_setting('threads') = '1'", "not allowed"),
        ("read_text('/etc/passwd') = 'x'", "not allowed"),
        ("random() < 0.5", "not allowed"),
        ("now() > seen", "use launched_at"),
        ("current_date > seen", "use launched_at"),
        ("lowr(name) = 'a'", "did you mean lower"),
        ("main.lower(name) = 'a'", "schema"),
        ("spend", "must be BOOLEAN, this is DOUBLE"),
        ("ok = $1", "parameter is not allowed"),
        ("* = 1", "not allowed|not an SQL expression"),
        ("list_transform(departments, d -> d) = departments", "not allowed"),
        ("spend > 1 /*", "not an SQL expression"),
    ],
)
def test_what_a_condition_may_not_do_is_refused(checker: Checker, text: str, says: str) -> None:
    mistake = checker.check(text, "BOOLEAN")
    assert mistake is not None
    assert any(part in mistake.message for part in says.split("|")), mistake


@pytest.mark.parametrize(
    ("text", "position"),
    [("name = 'é' and spnd > 1", 15), ("ok and spnd", 7), ("ok\nand spnd > 1", 7), ("name = 'é' and > 1", 15)],
)
def test_the_place_of_a_mistake_counts_characters(checker: Checker, text: str, position: int) -> None:
    mistake = checker.check(text, "BOOLEAN")
    assert mistake is not None
    assert mistake.position == position
    assert mistake.shown(text).splitlines()[-1].strip() == "^"


def test_the_columns_of_a_condition_are_known(checker: Checker) -> None:
    assert checker.columns("SPEND > 1 AND launched_at > seen") == {"spend", "seen"}


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/campaigns-attack'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "ATTACH '/tmp/campaigns-attack.db'",
        "SELECT getenv('HOME')",
    ],
)
def test_the_connection_itself_is_locked(attack: str) -> None:
    con = open_connection()
    with pytest.raises(Exception, match=r"disabled|locked|not exist|cannot|Permission"):
        con.execute(attack).fetchall()
