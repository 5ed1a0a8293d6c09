-- What was asked, what it cost, what may be spent.

create table ai_assistant.search_queries (
    id uuid primary key,
    session_id uuid references ai_assistant.sessions (id) on delete set null,
    principal_id text,
    request_id text,
    query_text text not null,
    query_vector_id varchar(255),
    mode text,
    filters jsonb not null default '{}',
    results_count integer,
    response_time_ms integer,
    relevance_scores numeric(12, 6)[] not null default '{}',
    chunk_ids uuid[] not null default '{}',
    timings_ms jsonb not null default '{}',
    created_at timestamptz not null default now()
);
create index search_queries_session on ai_assistant.search_queries (session_id);
create index search_queries_created_at on ai_assistant.search_queries (created_at);

-- No reference to search_queries: those rows are written a moment later than people may click.
create table ai_assistant.search_feedback (
    id uuid primary key,
    query_id uuid not null,
    chunk_id uuid,
    principal_id text not null,
    kind text not null check (kind in ('thumb', 'star')),
    rating smallint not null,
    comment text,
    created_at timestamptz not null default now(),
    check (rating in (-1, 1) or (kind = 'star' and rating between 1 and 5)),
    check (kind = 'thumb' or rating > 0)
);
create unique index search_feedback_once on ai_assistant.search_feedback
    (query_id, principal_id, (coalesce(chunk_id, query_id)));

create table ai_assistant.llm_metrics (
    id uuid primary key,
    provider varchar(50) not null,
    model varchar(100) not null,
    request_type varchar(50),
    principal_id text,
    request_id text,
    response_time_ms integer,
    first_token_ms integer,
    tokens_input integer,
    tokens_output integer,
    cost_usd numeric(12, 6),
    success boolean not null default true,
    error_message text,
    created_at timestamptz not null default now()
);
create index llm_metrics_provider on ai_assistant.llm_metrics (provider, model);
create index llm_metrics_created_at on ai_assistant.llm_metrics (created_at);

create table ai_assistant.budgets (
    id uuid primary key,
    scope text not null check (scope in ('global', 'user', 'group', 'model')),
    subject text not null default '',
    period text not null check (period in ('day', 'month')),
    limit_usd numeric(12, 6) not null check (limit_usd >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (scope, subject, period)
);

create table ai_assistant.reservations (
    id uuid primary key,
    budget_id uuid not null references ai_assistant.budgets (id) on delete cascade,
    request_id text not null,
    amount_usd numeric(12, 6) not null check (amount_usd >= 0),
    spent_usd numeric(12, 6) check (spent_usd >= 0),
    status text not null default 'held' check (status in ('held', 'settled', 'released')),
    period_start timestamptz not null,
    expires_at timestamptz not null,
    created_at timestamptz not null default now(),
    unique (budget_id, request_id)
);
create index reservations_period on ai_assistant.reservations (budget_id, period_start);
