{#
    Hook after a step: tell the planner how the values of columns are distributed
    now. Without it PostgreSQL expects no row of a load that it has not counted, and
    looks up each of its transactions by an index, also where there are hundreds of
    thousands. A tenth of the usual sample is enough, and takes no time.
#}
{% macro renew_statistics(columns) -%}
    {%- if is_incremental() -%}
        {{ return(adapter.dispatch("renew_statistics")(columns)) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__renew_statistics(columns) -%}{%- endmacro %}

{% macro postgres__renew_statistics(columns) -%}
    select set_config('default_statistics_target', '10', true);
    analyze {{ this }} ({{ columns }})
{%- endmacro %}
