{#
    Who may do what, on PostgreSQL. A loader lands raw data, a transformer runs
    dbt, a reporter reads marts. `dbt run-operation make_roles` makes the three;
    without them nothing here does anything, and one login may do it all.
#}

{#
    Make the roles, or bring their rights up to date: run it again after new
    sources or marts, or when somebody else than the transformer has built.
    Tables that stand there already are handed over to the role whose work they
    are. The login that runs this becomes a member of loader and transformer.
#}
{% macro make_roles() -%}
    {%- set ours = marquee_roles() -%}
    {%- set loaded = [] -%}
    {%- for source in graph.sources.values() if source.schema not in loaded -%}
        {%- do loaded.append(source.schema) -%}
    {%- endfor -%}
    {%- set built = [] -%}
    {%- for node in graph.nodes.values()
        if node.resource_type in ("model", "seed", "snapshot", "test")
        and node.schema not in built -%}
        {%- do built.append(node.schema) -%}
    {%- endfor -%}
    {%- set marts = [] -%}
    {%- for node in graph.nodes.values() if is_for_reporter(node) -%}
        {%- do marts.append(api.Relation.create(
            schema=node.schema, identifier=node.alias
        ) | string) -%}
    {%- endfor -%}
    {% call statement("make_roles") %}
do $make_roles$
declare
    loader constant text := {{ sql_text(ours.loader) }};
    transformer constant text := {{ sql_text(ours.transformer) }};
    reporter constant text := {{ sql_text(ours.reporter) }};
    marts constant text[] := {{ text_array(marts) }};
    place constant text := current_database();
    member text;
    owner text;
    folder text;
    found record;
begin
    -- two at once would trip over each other
    perform pg_advisory_xact_lock(hashtext('marquee:roles'));
    foreach member in array array[loader, transformer, reporter] loop
        if not exists (select from pg_roles where rolname = member) then
            execute format('create role %I', member);
        end if;
        execute format('grant connect on database %I to %I', place, member);
    end loop;
    foreach member in array array[loader, transformer] loop
        if not pg_has_role(current_user, member, 'usage') then
            execute format('grant %I to %I', member, current_user);
        end if;
        execute format('grant temporary on database %I to %I', place, member);
    end loop;
    execute format('grant create on database %I to %I', place, transformer);
    if not has_database_privilege(transformer, place, 'create') then
        raise insufficient_privilege using message = format(
            'only its owner may let %s create schemas in the database %s',
            transformer, place
        );
    end if;

    -- what each of them writes is its own: dbt and dlt alter and drop tables
    for folder, owner in
        select unnest({{ text_array(loaded) }}), loader
        union all
        select raw_schema || '_staging', loader
        from unnest({{ text_array(loaded) }}) as raw_schema
        union all
        select nspname::text, transformer
        from pg_namespace
        where nspname = any({{ text_array(built) }})
    loop
        execute format('create schema if not exists %I', folder);
        if (
            select nspowner <> owner::regrole
            from pg_namespace where nspname = folder
        ) then
            execute format('alter schema %I owner to %I', folder, owner);
        end if;
        for found in
            select
                oid::regclass as name,
                case relkind
                    when 'v' then 'view'
                    when 'm' then 'materialized view'
                    else 'table'
                end as kind
            from pg_class
            where
                relnamespace = folder::regnamespace
                and relkind in ('r', 'p', 'v', 'm')
                and relowner <> owner::regrole
        loop
            execute format(
                'alter %s %s owner to %I', found.kind, found.name, owner
            );
        end loop;
    end loop;

    -- the transformer reads all that lands, whoever lands it
    foreach folder in array {{ text_array(loaded) }} loop
        execute format('grant usage on schema %I to %I', folder, transformer);
        execute format(
            'grant select on all tables in schema %I to %I', folder, transformer
        );
        foreach member in array array[loader, current_user::text] loop
            execute format(
                'alter default privileges for role %I in schema %I'
                ' grant select on tables to %I',
                member, folder, transformer
            );
        end loop;
    end loop;

    -- the reporter reads what the models' grants say, as after a build
    for found in
        select distinct pg_class.oid::regclass as name, nspname
        from unnest(marts) as mart
        inner join pg_class on pg_class.oid = to_regclass(mart)
        inner join pg_namespace on pg_namespace.oid = relnamespace
    loop
        execute format('grant usage on schema %I to %I', found.nspname, reporter);
        execute format('grant select on %s to %I', found.name, reporter);
    end loop;
end
$make_roles$
    {% endcall %}
    {%- do adapter.commit() -%}
{%- endmacro %}

{#
    Before every run: let the reporter into the schemas that hold marts. dbt has
    made missing ones by then; tables get their grants as they are built.
#}
{% macro open_marts_to_reporter() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch("open_marts_to_reporter")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__open_marts_to_reporter() -%}{%- endmacro %}

{% macro postgres__open_marts_to_reporter() -%}
    {%- set reporter = marquee_roles().reporter -%}
    {%- set schemas = [] -%}
    {%- for node in graph.nodes.values()
        if is_for_reporter(node) and node.schema not in schemas -%}
        {%- do schemas.append(node.schema) -%}
    {%- endfor -%}
    {%- set closed = run_query(
        "select nspname from pg_namespace, pg_roles where rolname = "
        ~ sql_text(reporter)
        ~ " and nspname = any(" ~ text_array(schemas) ~ ")"
        ~ " and not has_schema_privilege(rolname, pg_namespace.oid, 'usage')"
        ~ " and pg_has_role(nspowner, 'usage')"
    ) -%}
    {%- for row in closed -%}
        grant usage on schema {{ adapter.quote(row[0]) }}
            to {{ adapter.quote(reporter) }};
    {%- endfor -%}
{%- endmacro %}

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

{% macro marquee_roles() -%}
    {{ return({
        "loader": var("loader_role"),
        "transformer": var("transformer_role"),
        "reporter": var("reporter_role"),
    }) }}
{%- endmacro %}

{% macro is_for_reporter(node) -%}
    {{ return(
        node.resource_type in ("model", "seed", "snapshot")
        and "reporter" in (node.config.get("grants") or {}).get("select", [])
    ) }}
{%- endmacro %}

{# SQL of a list of texts, empty ones included. #}
{% macro text_array(texts) -%}
    array[
    {%- for text in texts -%}
        {{ sql_text(text) }}
        {{- ", " if not loop.last }}
    {%- endfor -%}
    ]::text[]
{%- endmacro %}

{% macro sql_text(text) -%}
    {{ return(dbt.string_literal(dbt.escape_single_quotes(text))) }}
{%- endmacro %}
