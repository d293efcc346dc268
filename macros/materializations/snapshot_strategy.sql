{#
    dbt's own, but a snapshot that reads not one row closes no version: with
    --empty, or before anything has landed, the source is not gone, only unread.
#}
{% macro snapshot_check_strategy(
    node, snapshotted_rel, current_rel, model_config, target_exists
) -%}
    {%- set strategy = dbt.snapshot_check_strategy(
        node, snapshotted_rel, current_rel, model_config, target_exists
    ) -%}
    {%- if execute and strategy.hard_deletes != "ignore" -%}
        {%- set found = run_query(
            "select 1 as found from (" ~ node["compiled_code"] ~ ") as source_rows limit 1"
        ) -%}
        {%- if not found.rows -%}
            {%- do strategy.update(
                {"hard_deletes": "ignore", "invalidate_hard_deletes": false}
            ) -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(strategy) }}
{%- endmacro %}
