-- Who uses the product: people and services, their keys, their sessions, what they did.

create table ai_assistant.users (
    id text primary key check (length(id) between 1 and 255),
    kind text not null default 'user' check (kind in ('user', 'service')),
    email text,
    display_name text,
    groups text[] not null default '{}',
    roles text[] not null default '{}',
    created_at timestamptz not null default now(),
    last_seen_at timestamptz,
    disabled_at timestamptz
);
create unique index users_email on ai_assistant.users (lower(email)) where email is not null;

create table ai_assistant.api_keys (
    id uuid primary key,
    name text not null check (length(name) between 1 and 200),
    principal_id text not null references ai_assistant.users (id),
    groups text[] not null default '{}',
    prefix text not null,
    secret_sha256 bytea not null unique check (length(secret_sha256) = 32),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz
);
create index api_keys_principal on ai_assistant.api_keys (principal_id);

create table ai_assistant.sessions (
    id uuid primary key,
    user_id varchar(255),
    created_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    metadata jsonb not null default '{}'
);
create index sessions_created_at on ai_assistant.sessions (created_at);
create index sessions_user on ai_assistant.sessions (user_id, last_seen_at desc);

create table ai_assistant.audit_log (
    id uuid primary key,
    created_at timestamptz not null default now(),
    principal_id text not null,
    action text not null,
    target_type text,
    target_id text,
    outcome text not null check (outcome in ('allowed', 'denied', 'failed')),
    request_id text,
    details jsonb not null default '{}'
);
create index audit_log_created_at on ai_assistant.audit_log (created_at);
create index audit_log_principal on ai_assistant.audit_log (principal_id, created_at desc);
create index audit_log_target on ai_assistant.audit_log (target_type, target_id, created_at desc);
