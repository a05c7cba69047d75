"""The SQL that a condition may use: scalar and deterministic functions of the columns of its row."""

from __future__ import annotations

ALLOWED_NODES = frozenset("COLUMN_REF CONSTANT COMPARISON CONJUNCTION OPERATOR FUNCTION CAST CASE BETWEEN TYPE".split())

ALLOWED_FUNCTIONS = frozenset(
    # arithmetic and comparison operators, LIKE, ILIKE, GLOB, SIMILAR TO
    """
    + - * / // % ** ^ || & | << >> ~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape
    regexp_full_match
    """
    # numbers
    """
    abs ceil ceiling floor round round_even trunc sign sqrt cbrt exp ln log log2 log10 pow power mod greatest least
    isnan isinf isfinite add subtract multiply divide
    """
    # text
    """
    lower upper lcase ucase trim ltrim rtrim length len char_length character_length strlen left right substr
    substring position strpos instr contains starts_with ends_with prefix suffix replace reverse translate concat
    concat_ws split_part string_split str_split split regexp_matches regexp_extract regexp_replace
    levenshtein jaro_winkler_similarity strip_accents nfc_normalize ascii unicode chr md5 sha256
    """
    # dates and times
    """
    year month day hour minute second quarter week weekofyear dayofweek dayofmonth dayofyear isodow isoyear dayname
    monthname date_part datepart date_trunc datetrunc date_diff datediff date_sub datesub last_day make_date
    make_timestamp strftime strptime try_strptime epoch epoch_ms to_timestamp timezone to_years to_months to_weeks
    to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds to_quarters
    """
    # lists, structs and maps
    """
    list_value list_contains list_has list_has_any list_has_all list_position list_extract list_element list_distinct
    list_unique list_sum list_min list_max list_avg array_contains array_has array_length array_extract cardinality
    struct_extract struct_pack map_extract map_extract_value map_keys map_values map_contains element_at array_position
    """
    # choices
    """
    if ifnull nullif coalesce constant_or_null
    """.split()
)
