-- What pg_dump leaves out, of the current database: roles that it names and their members, without
-- passwords, and the database's own rights and settings. One row a statement: kind, role, text.
-- In the text, :database: stands for the database's name.
with recursive place as (
    select * from pg_database where datname = current_database()
),

named as (
    select refobjid as role_oid
    from pg_shdepend, place
    where
        refclassid = 'pg_authid'::regclass
        and (
            dbid = place.oid
            or dbid = 0 and classid = 'pg_database'::regclass and objid = place.oid
        )
    union
    select datdba from place
    union
    select member
    from pg_auth_members, named
    where roleid = role_oid and pg_get_userbyid(roleid) !~ '^pg_'
),

roles as (
    select pg_roles.*
    from pg_roles, named
    where pg_roles.oid = role_oid and rolname !~ '^pg_'
),

settings as (
    select
        setrole,
        setdatabase,
        split_part(setting, '=', 1) as name,
        substr(setting, strpos(setting, '=') + 1) as bound
    from pg_db_role_setting, unnest(setconfig) as setting
    where setdatabase in (select 0 union all select oid from place)
)

select
    'role' as kind,
    rolname::text as role,
    format(
        'create role %I with%s%s%s%s connection limit %s',
        rolname,
        case when rolcanlogin and not rolsuper then ' login' else ' nologin' end,
        case when rolinherit then ' inherit' else ' noinherit' end,
        case when rolcreaterole and not rolsuper then ' createrole' else '' end,
        case when rolcreatedb and not rolsuper then ' createdb' else '' end,
        rolconnlimit
    ) as statement
from roles
union all
select
    'member',
    members.rolname,
    format('grant %I to %I', pg_get_userbyid(roleid), members.rolname)
from pg_auth_members
inner join roles as members on member = members.oid
where
    pg_get_userbyid(roleid) ~ '^pg_'
    or roleid in (select oid from roles)
union all
select
    case when setdatabase = 0 then 'setting' else 'database' end,
    coalesce(roles.rolname, ''),
    case
        when setrole = 0 then 'alter database :database:'
        else format('alter role %I', roles.rolname)
    end
    || case when setrole <> 0 and setdatabase <> 0 then ' in database :database:' else '' end
    || format(' set %I to ', name)
    -- lists are kept as they are written
    || case
        when name in (
            'local_preload_libraries', 'search_path', 'session_preload_libraries',
            'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories'
        ) then bound
        else quote_literal(bound)
    end
from settings
left join roles on roles.oid = setrole
where (setrole = 0 and setdatabase <> 0) or roles.oid is not null
union all
select 'database', '', 'revoke all on database :database: from public'
union all
select
    'database',
    '',
    format(
        'grant %s on database :database: to %s%s',
        privilege_type,
        case
            when grantee = 0 then 'public' else quote_ident(pg_get_userbyid(grantee))
        end,
        case when is_grantable and grantee <> 0 then ' with grant option' else '' end
    )
from place, aclexplode(coalesce(datacl, acldefault('d', datdba)))
union all
select
    'database',
    '',
    format(
        'comment on database :database: is %L', shobj_description(place.oid, 'pg_database')
    )
from place
where shobj_description(place.oid, 'pg_database') is not null
union all
select 'owner', '', format('alter database :database: owner to %I', pg_get_userbyid(datdba))
from place
