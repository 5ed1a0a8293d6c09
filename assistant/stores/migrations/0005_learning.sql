-- What the product learns from, what was tried, and which model serves where.

create table ai_assistant.learning_examples (
    id uuid primary key,
    rfc_id uuid references ai_assistant.rfcs (id) on delete cascade,
    user_feedback integer check (user_feedback between 1 and 5),
    feedback_text text,
    quality_score numeric(3, 2),
    improvement_areas text[] not null default '{}',
    acl text[] not null default '{}',
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now()
);
create index learning_examples_rfc on ai_assistant.learning_examples (rfc_id);
create index learning_examples_created_at on ai_assistant.learning_examples (created_at);

create table ai_assistant.experiments (
    id uuid primary key,
    name text not null unique check (length(name) between 1 and 200),
    kind text not null,
    status text not null default 'draft' check (status in ('draft', 'running', 'stopped', 'decided')),
    variants jsonb not null default '[]',
    metrics jsonb not null default '{}',
    decision jsonb,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz
);

-- One lineage record for every adapter or embedder that ever served.
create table ai_assistant.model_deployments (
    id uuid primary key,
    model text not null,
    adapter text,
    alias text not null,
    registry_version text,
    data_hash text,
    code_version text,
    experiment_id uuid references ai_assistant.experiments (id) on delete set null,
    metrics jsonb not null default '{}',
    decision text not null check (decision in ('promoted', 'rejected', 'rolled_back')),
    decided_by text,
    created_at timestamptz not null default now(),
    retired_at timestamptz
);
create index model_deployments_alias on ai_assistant.model_deployments (model, alias, created_at desc);
