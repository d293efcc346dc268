{#
    How a data test runs, in place of dbt's own materialization: count the
    failing rows first, and only where there are some store them, as a table of
    the schema test_failures. What an earlier run left there goes when the test
    passes again. See docs/decisions.md for why not dbt's own tables or views.
#}
{% materialization test, default %}
    {%- set failing_rows -%}
        {{ get_limit_subquery_sql(sql, config.get("limit")) }}
    {%- endset -%}

    {%- set guard = end_with_the_client() | trim -%}
    {#- one round trip for both statements; a sum over no row is no failure -#}
    {% call statement("main", fetch_result=true) -%}
        {{ guard ~ ";" if guard }}
        {{ get_test_sql(
            failing_rows,
            "coalesce(" ~ config.get("fail_calc") ~ ", 0)",
            config.get("warn_if"),
            config.get("error_if"),
            limit=none
        ) }}
    {%- endcall %}

    {%- set relations = [] -%}
    {%- if should_store_failures() -%}
        {%- set name = model["alias"] -%}
        {%- set stored = adapter.get_relation(
            database=database, schema=schema, identifier=name
        ) -%}
        {%- set outcome = load_result("main")["data"][0] -%}
        {%- if stored -%}
            {%- do adapter.drop_relation(stored) -%}
            {%- do adapter.commit() -%}
        {%- endif -%}
        {%- if outcome[1] or outcome[2] -%}
            {%- set failures = api.Relation.create(
                database=database, schema=schema, identifier=name, type="table"
            ) -%}
            {%- call statement("store_failures", auto_begin=true) -%}
                {{ get_create_table_as_sql(false, failures, failing_rows) }}
            {%- endcall -%}
            {%- do adapter.commit() -%}
            {%- do relations.append(failures) -%}
        {%- endif -%}
    {%- endif -%}

    {{ return({"relations": relations}) }}
{% endmaterialization %}
