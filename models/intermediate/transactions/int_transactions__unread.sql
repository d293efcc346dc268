-- One row per line that could not be read and still waits: no later load has
-- read it again (its file was replaced, or the line had been cut off), and no
-- corrected text has landed in its place (marquee rejects replay).
with rejects as (
    select * from {{ ref('stg_transactions__rejects') }}
),

loads as (
    select * from {{ ref('stg_transactions__loads') }}
    where is_finished
),

landed_files as (
    select * from {{ ref('stg_transactions__files') }}
),

landed_lines as (
    select * from {{ ref('stg_transactions__transactions') }}
),

files as (
    select
        files.dlt_load_id,
        files.file_checksum,
        files.file_path,
        files.first_line_number,
        files.replayed_load_id,
        loads.loaded_at
    from landed_files as files
    inner join loads on files.dlt_load_id = loads.dlt_load_id
),

-- backwards: a frame that only grows is added up as it goes
read_files as (
    select
        dlt_load_id,
        file_checksum,
        loaded_at,
        min(first_line_number) over (
            partition by file_path
            order by dlt_load_id desc
            rows between unbounded preceding and 1 preceding
        ) as read_again_from
    from files
    where replayed_load_id is null
),

replayed_lines as (
    select
        landed.file_checksum,
        landed.file_line,
        max(landed.dlt_load_id) as dlt_load_id
    from landed_lines as landed
    inner join files
        on
            landed.dlt_load_id = files.dlt_load_id
            and landed.file_checksum = files.file_checksum
    where files.replayed_load_id is not null
    group by
        landed.file_checksum,
        landed.file_line
),

unread as (
    select
        rejects.dlt_load_id,
        rejects.file_checksum,
        rejects.file_line,
        rejects.reason_code,
        rejects.raw_text,
        rejects.file_name,
        read_files.loaded_at
    from rejects
    inner join read_files
        on
            rejects.dlt_load_id = read_files.dlt_load_id
            and rejects.file_checksum = read_files.file_checksum
    left join replayed_lines
        on
            rejects.file_checksum = replayed_lines.file_checksum
            and rejects.file_line = replayed_lines.file_line
            and rejects.dlt_load_id < replayed_lines.dlt_load_id
    where
        replayed_lines.file_line is null
        and (
            read_files.read_again_from is null
            or rejects.file_line < read_files.read_again_from
        )
)

select * from unread
