-- What the product knows: sources, their documents, and the runs that read them.
-- The text of a chunk lives in the vector store only; these tables hold identity, lineage and state.

create table ai_assistant.data_sources (
    id uuid primary key,
    source_type varchar(50) not null,
    source_name varchar(255) not null unique,
    kind varchar(50) not null,
    config jsonb not null default '{}',
    file_path text,
    -- Empty for sources read by ingestion: the chunks of a document are found by its id.
    vector_ids text[] not null default '{}',
    processing_status varchar(50) not null default 'pending'
        check (processing_status in ('pending', 'running', 'done', 'failed', 'cancelled', 'interrupted')),
    quality_score numeric(3, 2),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index data_sources_type on ai_assistant.data_sources (source_type);

create table ai_assistant.documents (
    id uuid primary key,
    source_id uuid not null references ai_assistant.data_sources (id) on delete cascade,
    external_id text not null,
    title text not null default '',
    url text,
    version text,
    -- Of the content whose chunks are stored; empty until the first time that they are.
    content_hash text not null default '',
    content_type text not null default '',
    chunk_count integer not null default 0 check (chunk_count >= 0),
    acl text[] not null default '{public}',
    status text not null default 'pending' check (status in ('pending', 'ready', 'failed')),
    error text,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (source_id, external_id)
);
create index documents_source_page on ai_assistant.documents (source_id, id desc);
create index documents_unfinished on ai_assistant.documents (source_id, status) where status <> 'ready';

create table ai_assistant.ingestion_runs (
    id uuid primary key,
    source_id uuid not null references ai_assistant.data_sources (id) on delete cascade,
    status text not null default 'running'
        check (status in ('running', 'done', 'failed', 'cancelled', 'interrupted')),
    counts jsonb not null default '{}',
    error text,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    check ((status = 'running') = (finished_at is null))
);
create index ingestion_runs_source on ai_assistant.ingestion_runs (source_id, id desc);

create table ai_assistant.ingestion_errors (
    id uuid primary key,
    run_id uuid not null references ai_assistant.ingestion_runs (id) on delete cascade,
    external_id text not null,
    stage text not null,
    message text not null,
    created_at timestamptz not null default now()
);
create index ingestion_errors_run on ai_assistant.ingestion_errors (run_id, id);
