{#
    A table with an enforced contract is filled first and gets its constraints
    then: a primary key is built in one pass instead of row by row, and, unlike
    `insert`, `create table as` may use parallel workers. The casts give columns
    the contract's exact types, also those of an incremental step. Every table
    gets statistics at once: without them a step that touches few rows would
    read the whole history.
#}
{% macro postgres__create_table_as(temporary, relation, sql) -%}
    {%- if config.get("contract").enforced -%}
        {{ get_assert_columns_equivalent(sql) }}
        {{ config.get("sql_header") or "" }}
        create
        {%- if temporary %} temporary{% elif config.get("unlogged") %} unlogged{% endif %}
        table {{ relation }} as
        select
            {% for name, column in model.columns.items() -%}
            cast({{ name }} as {{ column.data_type }}) as {{ name }}
            {{- "," if not loop.last }}
            {% endfor %}
        from (
            {{ sql }}
        ) as model_subq;
        {% if not temporary %}{{ add_constraints(relation) }}{% endif %}
    {%- else -%}
        {{ dbt.postgres__create_table_as(temporary, relation, sql) }}
    {%- endif %}
    analyze {{ relation }};
{%- endmacro %}

{# The constraints of the model's contract, added in one pass over the table. #}
{% macro add_constraints(relation) -%}
    {%- set not_null, others = [], model.constraints | list -%}
    {%- for name, column in model.columns.items() -%}
        {%- for constraint in column.constraints -%}
            {%- if constraint.type == "not_null" -%}
                {%- do not_null.append(name) -%}
            {%- else -%}
                {%- do others.append(dict(constraint, columns=[name])) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- set additions = [] -%}
    {%- for name in not_null -%}
        {%- do additions.append("alter column " ~ name ~ " set not null") -%}
    {%- endfor -%}
    {%- for rendered in adapter.render_raw_model_constraints(raw_constraints=others) -%}
        {%- do additions.append("add " ~ rendered) -%}
    {%- endfor -%}
    {%- if additions -%}
        alter table {{ relation }} {{ additions | join(", ") }};
    {%- endif -%}
{%- endmacro %}

{#
    Iceberg sets no column to not null that is there, and a table that is replaced by
    a query takes none. So the query itself looks: it fails on a null before
    anything is written, in a full build and in a step. A view of a step is as good
    as a table: it has no other name than the session knows.
#}
{% macro spark__create_table_as(temporary, relation, compiled_code, language="sql") -%}
    {%- set checked -%}
        {%- if config.get("contract").enforced -%}
            {{ get_assert_columns_equivalent(compiled_code) }}
            {{ checked_columns(compiled_code) }}
        {%- else -%}
            {{ compiled_code }}
        {%- endif -%}
    {%- endset -%}
    {%- if temporary -%}
        {{ create_temporary_view(relation, checked) }}
    {%- else -%}
        create or replace table {{ relation }}
        {{ file_format_clause() }}
        {{ tblproperties_clause() }}
        {{ partition_cols(label="partitioned by") }}
        {{ location_clause() }}
        {{ comment_clause() }}
        as
        {{ checked }}
    {%- endif -%}
{%- endmacro %}

{# A query's columns in the contract's types; a null where there must be none is an error. #}
{% macro checked_columns(sql) -%}
    select
        {% for name, column in model.columns.items() -%}
        {%- set cast_column = dbt.cast(name, column.data_type) | trim -%}
        {%- if column.constraints | selectattr("type", "equalto", "not_null") | list -%}
            {%- set complaint = sql_text(this ~ "." ~ name ~ " must not be null") -%}
            coalesce({{ cast_column }}, {{ dbt.cast(
                "raise_error(" ~ complaint ~ ")", column.data_type
            ) | trim }}) as {{ name }}
        {%- else -%}
            {{ cast_column }} as {{ name }}
        {%- endif -%}
        {{- "," if not loop.last }}
        {% endfor %}
    from (
        {{ sql }}
    ) as model_subq
{%- endmacro %}

{# Iceberg has no constraints: not null is in the query itself, and tests look after the keys. #}
{% macro spark__persist_constraints(relation, model) -%}{%- endmacro %}
