-- Long work and what it makes: jobs with leases and events, RFCs with their stages and citations.

create table ai_assistant.jobs (
    id uuid primary key,
    kind text not null check (length(kind) between 1 and 100),
    payload jsonb not null default '{}',
    status text not null default 'queued'
        check (status in ('queued', 'running', 'done', 'failed', 'cancelled')),
    idempotency_key text check (length(idempotency_key) between 1 and 500),
    worker text,
    lease_until timestamptz,
    attempts integer not null default 0 check (attempts >= 0),
    event_seq bigint not null default 0,
    error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    check (status <> 'running' or (worker is not null and lease_until is not null)),
    check ((status in ('done', 'failed', 'cancelled')) = (finished_at is not null))
);
create unique index jobs_idempotency on ai_assistant.jobs (kind, idempotency_key)
    where idempotency_key is not null;
create index jobs_claimable on ai_assistant.jobs (kind, id) where status in ('queued', 'running');

create table ai_assistant.job_events (
    job_id uuid not null references ai_assistant.jobs (id) on delete cascade,
    seq bigint not null,
    id uuid not null unique,
    type text not null check (length(type) between 1 and 100),
    data jsonb not null default '{}',
    created_at timestamptz not null default now(),
    primary key (job_id, seq)
);

create table ai_assistant.rfcs (
    id uuid primary key,
    session_id uuid references ai_assistant.sessions (id) on delete set null,
    title varchar(500) not null check (length(title) > 0),
    brief text not null default '',
    answers jsonb not null default '{}',
    content text not null default '',
    template_used varchar(100) not null,
    principal_id text not null,
    acl text[] not null check (cardinality(acl) > 0),
    job_id uuid references ai_assistant.jobs (id) on delete set null,
    status text not null default 'queued'
        check (status in ('queued', 'running', 'done', 'failed', 'cancelled')),
    error text,
    llm_provider varchar(50),
    generation_time_ms integer,
    tokens_used integer,
    cost_usd numeric(12, 6),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    metadata jsonb not null default '{}'
);
create index rfcs_session on ai_assistant.rfcs (session_id);
create index rfcs_created_at on ai_assistant.rfcs (created_at);
create index rfcs_acl on ai_assistant.rfcs using gin (acl);
create index rfcs_job on ai_assistant.rfcs (job_id);

create table ai_assistant.rfc_stages (
    rfc_id uuid not null references ai_assistant.rfcs (id) on delete cascade,
    stage text not null check (length(stage) between 1 and 100),
    artefact jsonb not null,
    model text,
    duration_ms integer,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (rfc_id, stage)
);

-- No reference to documents: a citation outlives the document that it quotes.
create table ai_assistant.rfc_citations (
    rfc_id uuid not null references ai_assistant.rfcs (id) on delete cascade,
    marker integer not null check (marker > 0),
    chunk_id uuid not null,
    document_id uuid not null,
    title text not null,
    headings text[] not null default '{}',
    start_offset integer not null check (start_offset >= 0),
    end_offset integer not null check (end_offset >= start_offset),
    quote text not null,
    content_hash text not null,
    url text,
    version text,
    primary key (rfc_id, marker)
);
create index rfc_citations_document on ai_assistant.rfc_citations (document_id);
