{# No two rows share these columns' values. #}
{% test unique_combination_of_columns(model, combination_of_columns, quote_columns=false) %}
    {{ return(adapter.dispatch("test_unique_combination_of_columns", "dbt_utils")(
        model, combination_of_columns, quote_columns
    )) }}
{% endtest %}

{% macro default__test_unique_combination_of_columns(
    model, combination_of_columns, quote_columns=false
) %}
    {%- set columns = [] -%}
    {%- for column in combination_of_columns -%}
        {%- do columns.append(adapter.quote(column) if quote_columns else column) -%}
    {%- endfor %}

    select {{ columns | join(", ") }}
    from {{ model }}
    group by {{ columns | join(", ") }}
    having count(*) > 1
{% endmacro %}

{# Every value lies within the bounds; a null passes. #}
{% test accepted_range(model, column_name, min_value=none, max_value=none, inclusive=true) %}
    {{ return(adapter.dispatch("test_accepted_range", "dbt_utils")(
        model, column_name, min_value, max_value, inclusive
    )) }}
{% endtest %}

{% macro default__test_accepted_range(
    model, column_name, min_value=none, max_value=none, inclusive=true
) %}
    {%- set or_equal = "=" if inclusive else "" -%}
    {%- set broken = [] -%}
    {%- if min_value is not none -%}
        {%- do broken.append("not " ~ column_name ~ " >" ~ or_equal ~ " " ~ min_value) -%}
    {%- endif -%}
    {%- if max_value is not none -%}
        {%- do broken.append("not " ~ column_name ~ " <" ~ or_equal ~ " " ~ max_value) -%}
    {%- endif %}

    select *
    from {{ model }}
    where {{ broken | join(" or ") or "1 = 0" }}
{% endmacro %}

{# An expression, put behind the column's name where there is one, is true for every row. #}
{% test expression_is_true(model, expression, column_name=none) %}
    {{ return(adapter.dispatch("test_expression_is_true", "dbt_utils")(
        model, expression, column_name
    )) }}
{% endtest %}

{% macro default__test_expression_is_true(model, expression, column_name=none) %}
    {%- set subject = "" if column_name is none else column_name ~ " " %}

    select {{ "*" if should_store_failures() else "1 as is_broken" }}
    from {{ model }}
    where not ({{ subject }}{{ expression }})
{% endmacro %}

{#
    Two relations have as many rows, in all or by group. Groups of one of them
    alone do not count, nor does an empty relation beside one with rows; two
    empty ones give no answer, which dbt calls an error.
#}
{% test equal_rowcount(model, compare_model, group_by_columns=[]) %}
    {{ return(adapter.dispatch("test_equal_rowcount", "dbt_utils")(
        model, compare_model, group_by_columns
    )) }}
{% endtest %}

{% macro default__test_equal_rowcount(model, compare_model, group_by_columns=[]) %}
    {{ config(fail_calc="sum(coalesce(diff_count, 0))") }}
    {%- set keys = ["same_for_all"] + group_by_columns -%}
    {%- set conditions = [] -%}
    {%- for key in keys -%}
        {%- do conditions.append("here." ~ key ~ " = there." ~ key) -%}
    {%- endfor %}

    with here as (
        {{ dbt_utils._rows_by_group(model, group_by_columns) }}
    ),

    there as (
        {{ dbt_utils._rows_by_group(compare_model, group_by_columns) }}
    )

    select
        {% for key in keys -%}
        here.{{ key }} as here_{{ key }},
        there.{{ key }} as there_{{ key }},
        {% endfor -%}
        here.row_count as row_count_here,
        there.row_count as row_count_there,
        abs(here.row_count - there.row_count) as diff_count
    from here
    full join there on {{ conditions | join(" and ") }}
{% endmacro %}

{% macro _rows_by_group(relation, group_by_columns) -%}
    select
        {% for column in group_by_columns %}{{ column }}, {% endfor -%}
        1 as same_for_all,
        count(*) as row_count
    from {{ relation }}
    group by {{ (["same_for_all"] + group_by_columns) | join(", ") }}
{%- endmacro %}

{#
    The ranges of each partition do not overlap: a range ends before the next
    one begins, or as it begins. gaps says whether room between them is allowed,
    not_allowed or required. Both bounds of every range are there.
#}
{% test mutually_exclusive_ranges(
    model,
    lower_bound_column,
    upper_bound_column,
    partition_by=none,
    gaps="allowed",
    zero_length_range_allowed=false
) %}
    {{ return(adapter.dispatch("test_mutually_exclusive_ranges", "dbt_utils")(
        model,
        lower_bound_column,
        upper_bound_column,
        partition_by,
        gaps,
        zero_length_range_allowed
    )) }}
{% endtest %}

{% macro default__test_mutually_exclusive_ranges(
    model,
    lower_bound_column,
    upper_bound_column,
    partition_by=none,
    gaps="allowed",
    zero_length_range_allowed=false
) %}
    {%- set comparisons = {"allowed": "<=", "not_allowed": "=", "required": "<"} -%}
    {%- if gaps not in comparisons -%}
        {{ exceptions.raise_compiler_error(
            "gaps is one of allowed, not_allowed and required, not " ~ gaps ~ "."
        ) }}
    {%- endif -%}
    {%- set partition = "partition by " ~ partition_by if partition_by else "" -%}
    {%- set shortest = "<=" if zero_length_range_allowed else "<" %}

    with ranges as (
        select
            {% if partition_by %}{{ partition_by }} as range_partition,{% endif %}
            {{ lower_bound_column }} as lower_bound,
            {{ upper_bound_column }} as upper_bound,
            lead({{ lower_bound_column }}) over (
                {{ partition }}
                order by {{ lower_bound_column }}, {{ upper_bound_column }}
            ) as next_lower_bound,
            row_number() over (
                {{ partition }}
                order by {{ lower_bound_column }} desc, {{ upper_bound_column }} desc
            ) = 1 as is_last
        from {{ model }}
    )

    select *
    from ranges
    where not (
        coalesce(lower_bound {{ shortest }} upper_bound, false)
        and coalesce(upper_bound {{ comparisons[gaps] }} next_lower_bound, is_last, false)
    )
{% endmacro %}
