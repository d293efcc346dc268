{#
    The config `grants` may say loader, transformer and reporter for the roles of
    these names, and those that the server does not have are left out: a build
    must not need roles.
#}
{% macro postgres__apply_grants(relation, grant_config, should_revoke=True) -%}
    {%- set ours = marquee_roles() -%}
    {%- set there = {} -%}
    {%- for privilege, grantees in (grant_config or {}).items() -%}
        {%- set named = [] -%}
        {%- for grantee in grantees -%}
            {%- do named.append(ours.get(grantee, grantee)) -%}
        {%- endfor -%}
        {%- do there.update({privilege: run_query(
            "select rolname from pg_roles where rolname = any("
            ~ text_array(named) ~ ")"
        ).columns[0].values() | list}) -%}
    {%- endfor -%}
    {{ return(default__apply_grants(relation, there, should_revoke)) }}
{%- endmacro %}

{% macro postgres__get_grant_sql(relation, privilege, grantees) -%}
    grant {{ privilege }} on {{ relation.render() }} to
    {%- for grantee in grantees %} {{ adapter.quote(grantee) }}
        {{- "," if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{# A file of DuckDB has no roles. #}
{% macro duckdb__apply_grants(relation, grant_config, should_revoke=True) -%}{%- endmacro %}

{# Spark leaves grants to the catalog. #}
{% macro spark__apply_grants(relation, grant_config, should_revoke=True) -%}{%- endmacro %}
