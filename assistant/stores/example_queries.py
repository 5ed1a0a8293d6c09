"""The statements behind `examples.py`, which are longer than what surrounds them."""

STATS = """
with bins as (
    select least(9, floor(coalesce(quality_score, 0) * 10)::int) as bin, count(*)::int as n
    from ai_assistant.learning_examples group by 1
), areas as (
    select area, count(*)::int as n
    from ai_assistant.learning_examples, unnest(improvement_areas) as area group by 1
)
select count(*)::int as total,
    count(*) filter (where positive)::int as positive,
    (select count(*)::int from ai_assistant.usable_examples(%(audience)s, %(min_quality)s)) as usable,
    jsonb_build_object(
        'answer', count(*) filter (where kind = 'answer'),
        'rfc_section', count(*) filter (where kind = 'rfc_section')) as by_kind,
    jsonb_build_object(
        '1', count(*) filter (where user_feedback = 1), '2', count(*) filter (where user_feedback = 2),
        '3', count(*) filter (where user_feedback = 3), '4', count(*) filter (where user_feedback = 4),
        '5', count(*) filter (where user_feedback = 5)) as by_rating,
    (select jsonb_agg(coalesce(b.n, 0) order by i)
        from generate_series(0, 9) as i left join bins b on b.bin = i) as quality,
    (select coalesce(jsonb_object_agg(area, n), '{}') from areas) as improvement_areas
from ai_assistant.learning_examples
"""

WAITING = """
with waiting as (
    select f.target, f.target_id, a.fingerprint from ai_assistant.feedback f
        left join ai_assistant.answers a on f.target = 'answer' and a.id = f.target_id
        left join ai_assistant.rfcs r on f.target = 'rfc' and r.id = f.target_id
    where f.processed_at is null
        and ((a.id is not null and (f.verified or f.principal_id = a.principal_id)) or r.id is not null)
    group by f.target, f.target_id, a.fingerprint order by min(f.updated_at), f.target_id limit %(limit)s
)
select target, target_id from waiting
union
select 'answer', a.id from waiting w join ai_assistant.answers a on a.fingerprint = w.fingerprint
where exists (select from ai_assistant.feedback f where f.target = 'answer' and f.target_id = a.id)
"""
"""Feedback on what is not stored yet waits here until it is. An opinion on an answer is one on its twins."""

FEEDBACK_ON_ANSWER = """
select f.* from ai_assistant.feedback f join ai_assistant.answers a on a.id = f.target_id
where f.target = 'answer' and f.target_id = %(id)s and (f.verified or f.principal_id = a.principal_id)
order by f.id
"""

FEEDBACK_ON_TWINS = """
select f.* from ai_assistant.answers a
    join ai_assistant.feedback f on f.target = 'answer' and f.target_id = a.id
where a.fingerprint = %(print)s and a.id <> %(id)s and (f.verified or f.principal_id = a.principal_id)
order by f.id
"""

PROCESSED = """
update ai_assistant.feedback f set processed_at = clock_timestamp()
from unnest(%(ids)s::uuid[], %(seen)s::timestamptz[]) as s (id, updated_at)
where f.id = s.id and f.updated_at = s.updated_at
"""
"""What changed since it was read is left for the next time."""

REMOVE_OF_ANSWER = """
delete from ai_assistant.learning_examples where answer_id = %(id)s and not id = any(%(kept)s::uuid[])
"""

REMOVE_OF_RFC = """
delete from ai_assistant.learning_examples where rfc_id = %(id)s and not id = any(%(kept)s::uuid[])
"""

SAVE = """
insert into ai_assistant.learning_examples as e (id, rfc_id, answer_id, section, kind, principal_id,
    user_feedback, feedback_text, quality_score, improvement_areas, messages, response, document_ids,
    positive, fingerprint, split_hash, rating_key, metadata, acl, changed_at, updated_at)
values (%(id)s, %(rfc_id)s, %(answer_id)s, %(section)s, %(kind)s, %(principal_id)s, %(stars)s, %(comment)s,
    %(quality)s, %(areas)s, %(messages)s, %(response)s, %(document_ids)s::uuid[], %(positive)s,
    %(fingerprint)s, %(split_hash)s, %(rating_key)s, %(metadata)s,
    ai_assistant.example_acl(%(document_ids)s::uuid[], %(metadata)s::jsonb), clock_timestamp(),
    clock_timestamp())
on conflict (id) do update set
    user_feedback = excluded.user_feedback, feedback_text = excluded.feedback_text,
    quality_score = excluded.quality_score, improvement_areas = excluded.improvement_areas,
    messages = excluded.messages, response = excluded.response, document_ids = excluded.document_ids,
    principal_id = excluded.principal_id, positive = excluded.positive, rating_key = excluded.rating_key,
    fingerprint = excluded.fingerprint, split_hash = excluded.split_hash, metadata = excluded.metadata,
    acl = excluded.acl, updated_at = excluded.updated_at,
    changed_at = case when (e.response, e.messages, e.positive, e.quality_score)
        is distinct from (excluded.response, excluded.messages, excluded.positive, excluded.quality_score)
        then excluded.changed_at else e.changed_at end
"""
