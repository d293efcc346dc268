{#
    What columns are called that hold fields beyond the contract: a dict of names
    of columns and of fields. A field's name in snake case; extra_ in front where
    the fact has such a column, a number behind where two fields would have one.
#}
{% macro extra_field_columns(fields, fact) -%}
    {%- set names, columns = ([fields] if fields is string else fields), {} -%}
    {%- for field in names | map("string") | unique(case_sensitive=true) -%}
        {%- set words = modules.re.sub("([a-z0-9])([A-Z])", "\\1_\\2", field) | lower -%}
        {%- set snake = modules.re.sub("[^a-z0-9]+", "_", words).strip("_") or "field" -%}
        {%- set is_taken = snake in columns_of_contract(fact) or snake[0] in "0123456789" -%}
        {%- set column = ("extra_" ~ snake if is_taken else snake)[:60] -%}
        {%- set column = column ~ "_" ~ loop.index if column in columns else column -%}
        {%- do columns.update({column: field}) -%}
    {%- endfor -%}
    {{- return(columns) -}}
{%- endmacro %}

{# Columns of a model, as its contract names them; none while dbt parses. #}
{% macro columns_of_contract(name) -%}
    {%- for node in (graph.nodes.values() if execute else []) if node.name == name -%}
        {{- return(node.columns.keys() | list) -}}
    {%- endfor -%}
    {{- return([]) -}}
{%- endmacro %}
