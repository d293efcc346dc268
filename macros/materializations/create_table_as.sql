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
