{#
    DuckDB gets no index: it skips what a step does not look at by each block's
    least and greatest values, while an index has to fit into memory and takes no
    row whose key the same transaction has deleted.
#}
{% macro duckdb__get_create_index_sql(relation, index_dict) -%}
    {{- return(none) -}}
{%- endmacro %}
