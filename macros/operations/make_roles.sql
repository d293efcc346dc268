{#
    Make the roles, or bring their rights up to date: run it again after new
    sources or marts, or when somebody else than the transformer has built.
    Tables that are there already are handed over to the role whose work they
    are. The login that runs this becomes a member of loader and transformer.

    The embedded server runs the same block by itself (ingestion/warehouse/roles.py), with
    `alone` set: there the database is Marquee's alone.
#}
{% macro make_roles() -%}
    {%- set ours = marquee_roles() -%}
    {%- set limits = var("reporter_limits") -%}
    {%- set alone = false -%}
    {%- set loaded = [] -%}
    {%- for source in graph.sources.values()
        if source.schema not in loaded and source.source_name != "ops" -%}
        {%- do loaded.append(source.schema) -%}
    {%- endfor -%}
    {%- set evidence = generate_schema_name("ops", none) -%}
    {%- set built = [evidence] -%}
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
    loaded constant text[] := {{ text_array(loaded) }};
    built constant text[] := {{ text_array(built) }};
    evidence constant text := {{ sql_text(evidence) }};
    marts constant text[] := {{ text_array(marts) }};
    -- settings of the reporter's sessions, as name and value in turn
    limits constant text[] := {{
        text_array(limits.items() | sum(start=()) | map("string") | list)
    }};
    -- nobody else uses the database, and a superuser runs this
    alone constant boolean := {{ alone | lower }};
    place constant text := current_database();
    landing text[];
    whole boolean;
    wanted text[];
    left_out text[] := '{}';
    statement text;
    member text;
    owner text;
    folder text;
    found record;
begin
    -- whoever waits for a build's tables holds up others meanwhile
    perform set_config('lock_timeout', '10s', true);
    foreach member in array array[loader, transformer, reporter] loop
        begin
            if not exists (select from pg_roles where rolname = member) then
                execute format('create role %I', member);
            end if;
        exception when duplicate_object or unique_violation then
            null;  -- somebody else has made it meanwhile
        end;
    end loop;
    -- Two of these at once would trip over each other. What says this locks the
    -- role until the end, and takes a right to it: an advisory lock takes none.
    begin
        execute format('comment on role %I is %L', loader, 'Marquee: lands raw data');
        execute format('comment on role %I is %L', transformer, 'Marquee: runs dbt');
        execute format('comment on role %I is %L', reporter, 'Marquee: reads marts');
    exception when insufficient_privilege then
        null;  -- somebody else's roles, which the rest may still be granted to
    end;
    foreach member in array array[loader, transformer, reporter] loop
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
    landing := loaded || array(
        select raw_schema || '_staging' from unnest(loaded) as raw_schema
    );
    for folder, owner, whole in
        select unnest(landing), loader, true
        union all
        select nspname, transformer, nspname = any(built)
        from pg_namespace
        where
            nspname = any(built)
            -- all else that a superuser made before there were roles
            or alone
            and nspname <> all(landing)
            and pg_get_userbyid(nspowner) in (current_user, 'pg_database_owner')
            and nspname !~ '^(pg_|information_schema$)'
    loop
        if to_regnamespace(quote_ident(folder)) is null then
            execute format('create schema %I', folder);
        end if;
        if exists (
            select from pg_namespace
            where
                nspname = folder
                and pg_get_userbyid(nspowner) not in (owner, 'pg_database_owner')
        ) then
            execute format('alter schema %I owner to %I', folder, owner);
        end if;
        for found in
            select
                relname as name,
                case relkind
                    when 'v' then 'view'
                    when 'm' then 'materialized view'
                    when 'f' then 'foreign table'
                    when 'S' then 'sequence'
                    else 'table'
                end as kind
            from pg_class
            where
                relnamespace = to_regnamespace(quote_ident(folder))
                and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
                and pg_get_userbyid(relowner) <> owner
                and (whole or pg_get_userbyid(relowner) = current_user)
                -- sequences of columns go with their tables
                and not exists (
                    select from pg_depend
                    where
                        classid = 'pg_class'::regclass
                        and objid = pg_class.oid
                        and (
                            deptype = 'e'
                            or relkind = 'S' and deptype in ('a', 'i')
                        )
                )
        loop
            execute format(
                'alter %s %I.%I owner to %I', found.kind, folder, found.name, owner
            );
        end loop;
    end loop;

    -- the transformer reads all that lands, whoever lands it
    foreach folder in array loaded loop
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

    -- a loader with a login of its own says what it has landed
    if not alone and exists (select from pg_namespace where nspname = evidence) then
        execute format('grant usage on schema %I to %I', evidence, loader);
        execute format(
            'grant select, insert, update, delete on all tables in schema %I to %I',
            evidence, loader
        );
    end if;

    -- the reporter sees when marts were built, and nothing else of the evidence
    if exists (
        select from pg_class
        where
            relnamespace = to_regnamespace(quote_ident(evidence))
            and relname = 'mart_builds'
    ) then
        execute format('grant usage on schema %I to %I', evidence, reporter);
        execute format('grant select on %I.mart_builds to %I', evidence, reporter);
    end if;

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

    -- What follows keeps the roles apart. A login that is no superuser may not do
    -- all of it everywhere: what it may not is left out, and named at the end.
    wanted := array[
        format('revoke temporary on database %I from public', place),
        'revoke create on schema public from public',
        -- a schema of a role's name would come first, and the transformer makes any
        format('alter role %I set search_path to public', loader),
        format('alter role %I set search_path to public', transformer),
        format('alter role %I connection limit {{ limits.get('connections', -1) }}', reporter)
    ];
    for found in
        select limits[place_of] as setting, limits[place_of + 1] as bound
        from generate_series(1, coalesce(array_length(limits, 1), 0), 2) as place_of
        where limits[place_of] <> 'connections'
    loop
        wanted := wanted || array[
            format('alter role %I set %I to %L', reporter, found.setting, found.bound),
            -- the reporter may have set it to something else, for itself
            format('alter role %I in database %I reset %I', reporter, place, found.setting)
        ];
    end loop;
    if alone then
        -- No large objects, and no advisory locks for the reporter. The loader
        -- gets no language: what it lands is read by others, so it holds no code.
        for found in
            select oid::regprocedure as name, proname
            from pg_proc
            where
                pronamespace = 'pg_catalog'::regnamespace
                and proname ~ '^(lo_|lowrite$|loread$|pg_(try_)?advisory_)'
        loop
            wanted := wanted || format(
                'revoke execute on function pg_catalog.%s from public', found.name
            );
            if found.proname ~ 'advisory' then
                wanted := wanted || format(
                    'grant execute on function pg_catalog.%s to %I, %I',
                    found.name, loader, transformer
                );
            end if;
        end loop;
        for found in select lanname from pg_language where lanpltrusted loop
            wanted := wanted || array[
                format('revoke usage on language %I from public', found.lanname),
                format('grant usage on language %I to %I', found.lanname, transformer)
            ];
        end loop;
        wanted := wanted || array[
            format('revoke connect on database %I from public', place),
            format('alter role %I set search_path to public', current_user)
        ];
    end if;
    foreach statement in array wanted loop
        begin
            execute statement;
        -- and not every system can check connections
        exception when insufficient_privilege or invalid_parameter_value then
            left_out := left_out || statement;
        end;
    end loop;
    -- a right that somebody else granted stays without an error
    if has_database_privilege(reporter, place, 'temporary') then
        left_out := left_out || wanted[1];
    end if;
    if has_schema_privilege(reporter, to_regnamespace('public'), 'create') then
        left_out := left_out || wanted[2];
    end if;
    perform set_config('marquee.left_out', array_to_string(left_out, e'\n'), true);
exception when lock_not_available then
    raise lock_not_available using message =
        'A build, a load or a reader is at work on tables that change hands.'
        ' Nothing was changed. Run this again when it has finished.';
end
$make_roles$
    {% endcall %}
    {%- set left_out = run_query("select current_setting('marquee.left_out')") -%}
    {%- do adapter.commit() -%}
    {%- if left_out.columns[0].values()[0] -%}
        {%- do log(
            "Left out, for it takes a superuser or the database's owner:\n"
            ~ left_out.columns[0].values()[0],
            info=true,
        ) -%}
    {%- endif -%}
{%- endmacro %}
