{#
    A view is replaced in place. dbt's own way makes a new one and drops the old
    one with all views that read it: those that a run does not select are gone
    after it, and threads that drop views with a common reader deadlock.
    PostgreSQL replaces a view as long as its columns stay, new ones last; where
    they do not, or where a table stands, it goes dbt's own way.
#}
{% materialization view, adapter="postgres" %}
    {%- set standing = load_cached_relation(this) -%}
    {%- if standing is none or not standing.is_view -%}
        {{- return(dbt.materialization_view_default()) -}}
    {%- endif -%}
    {%- set draft = make_intermediate_relation(standing) -%}
    {%- do drop_relation_if_exists(load_cached_relation(draft)) -%}
    {%- call statement("draft") -%}
        {{ get_create_view_as_sql(draft, sql) }}
    {%- endcall -%}
    {%- set stays = keeps_columns(standing, draft) -%}
    {%- do adapter.drop_relation(draft) -%}
    {%- if not stays -%}
        {{- return(dbt.materialization_view_default()) -}}
    {%- endif -%}

    {{ run_hooks(pre_hooks, inside_transaction=false) }}
    {{ run_hooks(pre_hooks, inside_transaction=true) }}
    {% call statement("main") -%}
        {{ get_replace_view_sql(standing, sql) }}
    {%- endcall %}
    {% do apply_grants(standing, config.get("grants"), should_revoke=true) %}
    {% do persist_docs(standing, model) %}
    {{ run_hooks(post_hooks, inside_transaction=true) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=false) }}
    {{ return({"relations": [standing]}) }}
{% endmaterialization %}

{# Whether a view's columns come first in another one, by name, type and order. #}
{% macro keeps_columns(standing, draft) -%}
    {%- set before = adapter.get_columns_in_relation(standing) -%}
    {%- set after = adapter.get_columns_in_relation(draft) -%}
    {%- set differing = [] -%}
    {%- for column in before -%}
        {%- set new = after[loop.index0] -%}
        {%- if not new or (new.name, new.data_type) != (column.name, column.data_type) -%}
            {%- do differing.append(column.name) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(before and not differing) -}}
{%- endmacro %}
