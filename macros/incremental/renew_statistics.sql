{#
    Hook after a step: tell the planner how the values of a column are distributed
    now. Without it PostgreSQL expects no row of a load that it has not counted, and
    looks up each of its transactions by an index, also where there are hundreds of
    thousands. A tenth of the usual sample is enough, and takes no time.
#}
{% macro renew_statistics(column) -%}
    {%- if is_incremental() -%}
        {{ return(adapter.dispatch("renew_statistics")(column)) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__renew_statistics(column) -%}{%- endmacro %}

{% macro postgres__renew_statistics(column) -%}
    select set_config('default_statistics_target', '10', true);
    analyze {{ this }} ({{ column }})
{%- endmacro %}
