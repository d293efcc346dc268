{#
    After every run: what failed tests found, in words, where a test has a column
    for that, which its meta `says` names. dbt itself only counts the rows.
#}
{% macro say_what_failed(results) -%}
    {%- for result in results if execute and result.status in ("fail", "warn") -%}
        {%- set column = result.node.config.get("meta", {}).get("says") -%}
        {%- if column -%}
            {%- set found = run_query(
                "select " ~ column ~ " from (" ~ result.node.compiled_code
                ~ ") as failing_rows limit 5"
            ) -%}
            {%- for row in found -%}
                {#- values of strangers are in it: nothing that a terminal acts on -#}
                {%- set safe = modules.re.sub("[\\x00-\\x1f\\x7f-\\x9f]", "?", row[0]) -%}
                {%- do log(result.node.name ~ " found: " ~ safe, info=true) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}
