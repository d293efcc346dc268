{#
    Before every run: what a query of a raw table calls, it calls as the one who
    asks. Where raw tables are somebody else's, the loader's, none of them may
    hold code of that role: a view in place of a table, a policy, an index on a
    function, a column of a type with casts of its own.
#}
{% macro refuse_planted_code() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch("refuse_planted_code")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__refuse_planted_code() -%}{%- endmacro %}

{% macro postgres__refuse_planted_code() -%}
    {%- set names = [] -%}
    {%- for source in graph.sources.values() -%}
        {%- do names.append(source.schema ~ "." ~ source.identifier) -%}
    {%- endfor -%}
    {%- set planted = run_query(planted_code_sql(names)) -%}
    {%- if planted | length -%}
        {%- set found = [] -%}
        {%- for row in planted -%}
            {%- do found.append(row[0] ~ " calls code of " ~ row[1]) -%}
        {%- endfor -%}
        {{ exceptions.raise_compiler_error(
            found | join(", ") ~ ", which would run with this login's rights.\n"
            ~ "Have it taken out, or given to this login, then run this again."
        ) }}
    {%- endif -%}
{%- endmacro %}

{# SQL of relations, among some and those that they read, that call others' code. #}
{% macro planted_code_sql(names) -%}
    with recursive relations as (
        select pg_class.oid
        from pg_class
        inner join pg_namespace on pg_namespace.oid = relnamespace
        where nspname || '.' || relname = any({{ text_array(names) }})
        union
        select used.oid
        from relations
        inner join lateral (
            select inhrelid as oid
            from pg_inherits
            where inhparent = relations.oid
            union all
            select refobjid
            from pg_rewrite
            inner join pg_depend
                on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid
            where
                ev_class = relations.oid
                and refclassid = 'pg_class'::regclass
        ) as used on true
    ),

    parts as (
        select oid as relation, 'pg_class'::regclass::oid as kind, oid as part
        from relations
        union all
        select indrelid, 'pg_class'::regclass, indexrelid from pg_index
        union all
        select conrelid, 'pg_constraint'::regclass, oid from pg_constraint
        union all
        select polrelid, 'pg_policy'::regclass, oid from pg_policy
        union all
        select ev_class, 'pg_rewrite'::regclass, oid
        from pg_rewrite where ev_type = '1'
    )

    select distinct parts.relation::regclass::text, pg_get_userbyid(code.owner)
    from parts
    inner join relations on relations.oid = parts.relation
    inner join pg_depend on classid = parts.kind and objid = parts.part
    inner join lateral (
        select proowner as owner
        from pg_proc
        where refclassid = 'pg_proc'::regclass and oid = refobjid
        union all
        select oprowner
        from pg_operator
        where refclassid = 'pg_operator'::regclass and oid = refobjid
        union all
        select typowner
        from pg_type
        where refclassid = 'pg_type'::regclass and oid = refobjid
    ) as code on true
    inner join pg_roles on pg_roles.oid = code.owner
    where not pg_has_role(code.owner, 'usage') and not rolsuper
    order by 1
{%- endmacro %}
