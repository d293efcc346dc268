{#
    What each relation was built from. A model that is built a batch at a time
    keeps rows that earlier versions of the project made. So a fingerprint of
    what it was built from is recorded in the warehouse, and where that differs from
    the project's, dbt rebuilds the model in full, by itself. A fingerprint takes
    in those of all that the model reads: after a new version, an edited seed or
    another value of a variable, `dbt build` gives what `--full-refresh` gives,
    and rebuilds in full only what that changes.
#}

{# dbt asks this before it builds a model, and is_incremental() asks it too. #}
{% macro should_full_refresh() -%}
    {{- return(
        (
            dbt.should_full_refresh()
            or (config.get("full_refresh") is none and was_built_otherwise())
        )
        and not is_filled_anew_in_place()
    ) -}}
{%- endmacro %}

{#
    Whether an incremental model stands there that was built from something else.
    The answer stays the same while the model is built, so that its hooks agree.
#}
{% macro was_built_otherwise() -%}
    {%- if not execute or model.config.materialized != "incremental" -%}
        {{- return(false) -}}
    {%- endif -%}
    {%- if "built_otherwise" not in context -%}
        {%- set there = adapter.get_relation(
            this.database, this.schema, this.identifier
        ) is not none -%}
        {%- do context.update({
            "built_otherwise": there and not was_recorded_as_it_is()
        }) -%}
    {%- endif -%}
    {{- return(context["built_otherwise"]) -}}
{%- endmacro %}

{#
    Hook after every model, seed and snapshot, in the transaction that builds it:
    one that is killed leaves the old fingerprint beside the old relation.
#}
{% macro record_fingerprint() -%}
    {%- if not execute -%}
        {{- return("") -}}
    {%- endif -%}
    {%- if was_built_otherwise() -%}
        {%- do log(
            model.schema ~ "." ~ model.alias ~ " is rebuilt in full: what it is"
            ~ " built from has changed", info=true
        ) -%}
    {%- endif -%}
    {%- set key, current = sql_text(fingerprint_key(model)), fingerprint(model) -%}
    {%- if not was_recorded_as_it_is() -%}
        {{ adapter.dispatch("write_fingerprint")(key, current) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__write_fingerprint(key, current) -%}
    {%- do run_query(
        "delete from " ~ fingerprints() ~ " where relation_name = " ~ key
    ) -%}
    insert into {{ fingerprints() }} (relation_name, fingerprint)
    values ({{ key }}, '{{ current }}')
{%- endmacro %}

{#
    On Spark they are properties of the table: Iceberg lets threads set some at the
    same moment, which a delete does not, and no job is started for a row.
#}
{% macro spark__write_fingerprint(key, current) -%}
    alter table {{ fingerprints() }}
    set tblproperties ({{ key }} = '{{ current }}')
{%- endmacro %}

{# Before every run: make the table of fingerprints, where it is not there. #}
{% macro make_fingerprints() -%}
    {%- if execute and not fingerprints_are_there() -%}
        {%- do create_schema(fingerprints()) -%}
        {%- call statement("make_fingerprints") -%}
            {{ adapter.dispatch("create_fingerprints")() }}
        {%- endcall -%}
        {#- what asked before may have begun a transaction, which ends with the hooks -#}
        {%- do adapter.commit() -%}
        {%- do adapter.cache_added(fingerprints()) -%}
    {%- endif -%}
{%- endmacro %}

{% macro default__create_fingerprints() -%}
    create table if not exists {{ fingerprints() }} (
        relation_name {{ dbt.type_string() }},
        fingerprint {{ dbt.type_string() }}
    )
{%- endmacro %}

{% macro spark__create_fingerprints() -%}
    create table if not exists {{ fingerprints() }} (relation_name string)
    using iceberg
    tblproperties (
        'commit.retry.num-retries' = '20',
        'write.metadata.delete-after-commit.enabled' = 'true',
        'write.metadata.previous-versions-max' = '10'
    )
{%- endmacro %}

{% macro fingerprints() -%}
    {{- return(api.Relation.create(
        database=target.database | default(none),
        schema=generate_schema_name("intermediate", none),
        identifier="fingerprints",
        type="table"
    )) -}}
{%- endmacro %}

{% macro fingerprints_are_there() -%}
    {%- set table = fingerprints() -%}
    {{- return(adapter.get_relation(
        table.database, table.schema, table.identifier
    ) is not none) -}}
{%- endmacro %}

{# What the warehouse remembers: names of relations, and the fingerprint of each. #}
{% macro recorded_fingerprints() -%}
    {%- if "known_fingerprints" not in context -%}
        {%- set recorded = {} -%}
        {%- if fingerprints_are_there() -%}
            {%- for row in run_query(adapter.dispatch("recorded_rows")()) -%}
                {%- do recorded.update({row[0]: row[1]}) -%}
            {%- endfor -%}
        {%- endif -%}
        {%- do context.update({"known_fingerprints": recorded}) -%}
    {%- endif -%}
    {{- return(context["known_fingerprints"]) -}}
{%- endmacro %}

{% macro default__recorded_rows() -%}
    select relation_name, fingerprint from {{ fingerprints() }}
{%- endmacro %}

{% macro spark__recorded_rows() -%}
    show tblproperties {{ fingerprints() }}
{%- endmacro %}

{# Whether the warehouse remembers what this node would be built from now. #}
{% macro was_recorded_as_it_is() -%}
    {{- return(
        recorded_fingerprints().get(fingerprint_key(model)) == fingerprint(model)
    ) -}}
{%- endmacro %}

{# What a node's fingerprint is kept under. #}
{% macro fingerprint_key(node) -%}
    {{- return(adapter.dispatch("fingerprint_key")(node)) -}}
{%- endmacro %}

{% macro default__fingerprint_key(node) -%}
    {{- return(node.schema ~ "." ~ node.alias) -}}
{%- endmacro %}

{# Spark shows no value of a property whose name has "url" in it, as "hourly" has. #}
{% macro spark__fingerprint_key(node) -%}
    {{- return(local_md5(node.schema ~ "." ~ node.alias)) -}}
{%- endmacro %}

{#
    What a node is built from, as a hash: its text and config, the macros and
    variables that they name, the columns of its contract, the lines of a seed,
    and what the warehouse remembers of each relation that it reads.
#}
{% macro fingerprint(node) -%}
    {%- set node = graph.nodes[node.unique_id] -%}
    {%- set written = [node.raw_code] -%}
    {%- for hook in node.config["pre-hook"] + node.config["post-hook"]
        if "record_mart_build" not in hook.sql -%}
        {%- do written.append(hook.sql) -%}
    {%- endfor -%}
    {%- set texts = {"": without_comments(written | join("\n"))} -%}
    {%- do add_macros(written | join("\n"), node.depends_on.macros, texts) -%}
    {%- set parts = [relevant_config(node), lines_of_seed(node)] -%}
    {%- for name in texts | sort -%}
        {%- do parts.append(texts[name]) -%}
    {%- endfor -%}
    {%- do parts.append(named_variables(parts | join("\n"))) -%}
    {%- for unique_id in node.depends_on.nodes | sort -%}
        {%- set source = graph.sources.get(unique_id) -%}
        {%- set read = graph.nodes.get(unique_id, source) -%}
        {%- if source -%}
            {%- do parts.append(source.schema ~ "." ~ source.identifier) -%}
        {%- elif read.config.materialized == "ephemeral" -%}
            {%- do parts.append(fingerprint(read)) -%}
        {%- else -%}
            {%- do parts.append(
                unique_id ~ recorded_fingerprints().get(fingerprint_key(read))
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(local_md5(parts | join("\n"))) -}}
{%- endmacro %}

{# A text less what changes nothing: Jinja's comments, lines of SQL comments, indentation. #}
{% macro without_comments(text) -%}
    {%- set less = modules.re.sub("(?s)[{]#.*?#[}]", "", text) -%}
    {%- set less = modules.re.sub("(?m)^\\s*--.*$", "", less) -%}
    {{- return(modules.re.sub("\\s*\\n\\s*", "\n", less)) -}}
{%- endmacro %}

{#
    Put the texts of macros that a text calls into a dict, and of those which they
    call. By name, as dbt lists only those that were called while it parsed: none
    of an incremental step's. dbt's own are left out.
#}
{% macro add_macros(text, listed, texts) -%}
    {%- set names = [] -%}
    {%- for name in listed -%}
        {%- do names.append(name.split(".")[1:]) -%}
    {%- endfor -%}
    {%- for package, name in modules.re.findall("(?:(\\w+)[.])?(\\w+)\\s*\\(", text) -%}
        {%- do names.append([package or project_name, name]) -%}
    {%- endfor -%}
    {%- for package, name in names if package != "dbt" -%}
        {%- set its_macros = context.get(package) -%}
        {%- if its_macros is mapping and name in its_macros -%}
            {%- set found = its_macros[name].macro -%}
            {%- if found is defined and found.unique_id not in texts
                and found.original_file_path.split("/")[-1]
                not in ["fingerprints.sql", "mart_builds.sql"] -%}
                {%- do texts.update(
                    {found.unique_id: without_comments(found.macro_sql)}
                ) -%}
                {%- do add_macros(
                    found.macro_sql, found.depends_on.macros, texts
                ) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}

{# Configs that were set and that decide what a relation holds, and a contract's columns. #}
{% macro relevant_config(node) -%}
    {%- set relevant = {} -%}
    {%- for key in node.unrendered_config if key not in [
        "access", "alias", "contract", "database", "description", "docs",
        "enabled", "file_format", "full_refresh", "grants", "group", "meta",
        "persist_docs", "post-hook", "pre-hook", "schema", "tags",
    ] -%}
        {%- do relevant.update({key: node.config.get(key)}) -%}
    {%- endfor -%}
    {%- if node.config.get("contract", {}).enforced -%}
        {%- set columns = [] -%}
        {%- for name, column in node.columns.items() -%}
            {%- do columns.append([name, column.data_type, column.constraints]) -%}
        {%- endfor -%}
        {%- do relevant.update({"contract": [columns, node.constraints]}) -%}
    {%- endif -%}
    {{- return(relevant | string) -}}
{%- endmacro %}

{# What tells the lines of a seed: dbt's checksum, or the lines, as dbt reads none of a large one. #}
{% macro lines_of_seed(node) -%}
    {%- if node.resource_type != "seed" -%}
        {{- return("") -}}
    {%- elif node.checksum.name != "path" -%}
        {{- return(node.checksum.checksum) -}}
    {%- endif -%}
    {%- set lines = [] -%}
    {%- for row in load_agate_table().rows -%}
        {%- do lines.append(row.values() | join("|")) -%}
    {%- endfor -%}
    {{- return(local_md5(lines | join("\n"))) -}}
{%- endmacro %}

{# Variables that a text names, with their values. #}
{% macro named_variables(text) -%}
    {%- set values = {} -%}
    {%- for name in modules.re.findall("\\bvar\\(\\s*[\"']([\\w.]+)[\"']", text) -%}
        {%- do values.update({name: var(name, none)}) -%}
    {%- endfor -%}
    {{- return(values | dictsort | string) -}}
{%- endmacro %}
