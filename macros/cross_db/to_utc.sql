{#
    A moment as a UTC timestamp without a time zone, whatever the session's
    time zone is, so that its date does not depend on who asks.
#}
{% macro to_utc(timestamp_column) -%}
    {{ return(adapter.dispatch("to_utc")(timestamp_column)) }}
{%- endmacro %}

{% macro default__to_utc(timestamp_column) -%}
    to_utc_timestamp({{ timestamp_column }}, current_timezone())
{%- endmacro %}

{% macro postgres__to_utc(timestamp_column) -%}
    ({{ timestamp_column }} at time zone 'UTC')
{%- endmacro %}

{% macro duckdb__to_utc(timestamp_column) -%}
    timezone('UTC', {{ timestamp_column }})
{%- endmacro %}
