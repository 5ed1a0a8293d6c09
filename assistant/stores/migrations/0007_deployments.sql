-- Which adapter a model serves with: one row per adapter that was ever offered, from offer to retirement.
-- `alias` is the place that it holds, or held last; a champion without an adapter is the base model itself.

alter table ai_assistant.model_deployments
    add column share double precision not null default 0 check (share between 0 and 1),
    add column lineage jsonb not null default '{}',
    add column updated_at timestamptz not null default now(),
    add check (alias in ('champion', 'challenger', 'previous')),
    -- The adapter becomes a folder name.
    add check (adapter ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    add check (adapter is not null or alias <> 'challenger'),
    drop constraint model_deployments_decision_check,
    add constraint model_deployments_decision_check
        check (decision in ('candidate', 'promoted', 'rejected', 'rolled_back', 'withdrawn'));

create unique index model_deployments_live on ai_assistant.model_deployments (model, alias)
    where retired_at is null;

alter table ai_assistant.llm_metrics add column adapter text;
