-- What people thought of answers, searches and RFCs, and the examples that come of it.

-- Nothing ever read it; `feedback` below takes its place.
drop table ai_assistant.search_feedback;

create table ai_assistant.answers (
    id uuid primary key,
    principal_id text not null,
    request_id text,
    question text not null,
    -- The conversation as it was sent, without system messages.
    messages jsonb not null default '[]',
    text text not null,
    model text not null,
    adapter text,
    citations jsonb not null default '[]',
    -- The passages that the text was made from, cited or not, as they were then.
    evidence jsonb not null default '[]',
    document_ids uuid[] not null default '{}',
    acl text[] not null default '{}',
    grounded boolean not null,
    extractive boolean not null,
    -- The same question with the same answer, whoever asked.
    fingerprint text not null,
    created_at timestamptz not null default now()
);
create index answers_created_at on ai_assistant.answers (created_at);
create index answers_fingerprint on ai_assistant.answers (fingerprint);

-- No reference to targets: answers and searches are written a moment later than people may click.
create table ai_assistant.feedback (
    id uuid primary key,
    target text not null check (target in ('answer', 'search', 'rfc')),
    target_id uuid not null,
    chunk_id uuid,
    section text check (length(section) between 1 and 500),
    principal_id text not null,
    thumb smallint check (thumb in (-1, 1)),
    stars smallint check (stars between 1 and 5),
    comment text,
    edited_text text,
    -- False: the target was not stored yet. It then counts only when its owner gave it.
    verified boolean not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- When an example was last made of it; empty again after each change.
    processed_at timestamptz,
    check (num_nonnulls(thumb, stars, comment, edited_text) > 0),
    check (target = 'search' or chunk_id is null),
    check (target = 'rfc' or section is null),
    unique nulls not distinct (target, target_id, chunk_id, section, principal_id)
);
create index feedback_unprocessed on ai_assistant.feedback (target, target_id) where processed_at is null;

alter table ai_assistant.learning_examples
    add column kind text not null default 'rfc_section' check (kind in ('answer', 'rfc_section')),
    add column answer_id uuid references ai_assistant.answers (id) on delete cascade,
    add column section text,
    add column principal_id text,
    add column messages jsonb not null default '[]',
    add column response text not null default '',
    add column document_ids uuid[] not null default '{}',
    -- Negative feedback leaves a record too, but never something to imitate.
    add column positive boolean not null default false,
    -- The same input with the same response.
    add column fingerprint text not null default '',
    -- The same input: what shares it must not be split between training and test.
    add column split_hash text not null default '',
    -- The rated thing: several sections of one rated RFC count as one piece of news.
    add column rating_key text not null default '',
    -- When it last became something else to learn from.
    add column changed_at timestamptz not null default now(),
    add column updated_at timestamptz not null default now();
alter table ai_assistant.learning_examples alter column kind drop default;
create index learning_examples_changed_at on ai_assistant.learning_examples (changed_at) where positive;
create index learning_examples_answer on ai_assistant.learning_examples (answer_id);
create index learning_examples_acl on ai_assistant.learning_examples using gin (acl);

-- Who may see something made of several documents: whoever may see all of them.
--
-- Each document, and `also` where it is given, is a set of terms of which a reader needs one. The result is
-- the terms that satisfy all of these sets: `public` alone when every set has it; otherwise the terms that
-- every set without `public` has in common; and `owner` alone when there is no such term, when a document
-- is gone, or when there is nothing to judge by. It is never wider than the evidence, sometimes narrower.
create function ai_assistant.evidence_acl(document_ids uuid[], also text[], owner text) returns text[]
language sql stable as $$
    with evidence as (
        select d.id::text as name, doc.acl from unnest(document_ids) as d (id)
            left join ai_assistant.documents doc on doc.id = d.id
        union all
        select 'also', also where also is not null
    ),
    restricted as (select * from evidence where acl is null or not 'public' = any(acl)),
    shared as (
        select term from restricted, unnest(acl) as term
        group by term having count(distinct name) = (select count(distinct name) from restricted)
    )
    select case
        when not exists (select from evidence) then array[owner]
        when exists (select from restricted where acl is null) then array[owner]
        when not exists (select from restricted) then array['public']
        when not exists (select from shared) then array[owner]
        else (select array_agg(term order by term) from shared)
    end
$$;

-- The access list of an example, from what was noted when it was made and from its documents now.
create function ai_assistant.example_acl(document_ids uuid[], metadata jsonb) returns text[]
language sql stable as $$
    select case
        when (metadata ->> 'owner_only')::boolean then array[metadata ->> 'owner']
        else ai_assistant.evidence_acl(
            document_ids,
            case when jsonb_typeof(metadata -> 'also') = 'array'
                then array(select jsonb_array_elements_text(metadata -> 'also')) end,
            metadata ->> 'owner')
    end
$$;

-- Whether every one of these documents is there and open to a reader with these terms.
create function ai_assistant.all_visible(document_ids uuid[], terms text[]) returns boolean
language sql stable as $$
    select not exists (
        select from unnest(document_ids) as d (id) left join ai_assistant.documents doc on doc.id = d.id
        where doc.id is null or not doc.acl && terms)
$$;

-- What may be learned from by a model that everybody with these terms may use. Of several examples with the
-- same input and response, the best. The stored access list may be older than the documents': both must hold.
create function ai_assistant.usable_examples(terms text[], min_quality double precision)
returns setof ai_assistant.learning_examples
language sql stable as $$
    select distinct on (fingerprint) * from ai_assistant.learning_examples
    where positive and quality_score >= min_quality::numeric and acl && terms
        and ai_assistant.all_visible(document_ids, terms)
    order by fingerprint, quality_score desc, id
$$;

-- At most one learning run is alive, whoever starts it.
create unique index jobs_one_learning_run on ai_assistant.jobs (kind)
    where kind = 'learning.run' and status in ('queued', 'running');

-- Who does what only one may do at a time.
create table ai_assistant.leases (
    name text primary key check (length(name) between 1 and 100),
    holder text not null,
    until timestamptz not null
);
