"""Canned answers for the stub: a small world of runbooks and designs, with one hostile document in it."""

from uuid import UUID

from assistant.types import Citation, Hit

HOSTILE_TITLE = '<img src=x onerror="window.hacked=1">'
HOSTILE_TEXT = (
    '<script>window.hacked = 1</script> <img src=x onerror="window.hacked=1"> <svg/onload=window.hacked=1> '
    "[click](javascript:window.hacked=1) ![pixel](https://evil.example/pixel.png) [1] "
    '[1]: javascript:window.hacked=1 <a href="https://evil.example" onclick="window.hacked=1">x</a>'
)


def _hit(
    number: int,
    title: str,
    headings: tuple[str, ...],
    text: str,
    words: tuple[str, ...],
    source_type: str,
    source: str,
    scores: tuple[float, float | None, float | None],
    url: str | None = None,
) -> Hit:
    marks = []
    for word in words:
        at = text.find(word)
        if at >= 0:
            marks.append((at, at + len(word)))
    return Hit(
        chunk_id=UUID(int=number),
        document_id=UUID(int=1000 + number),
        score=scores[0],
        text=text,
        title=title,
        headings=headings,
        start=120 * number,
        end=120 * number + len(text),
        source=source,
        source_type=source_type,
        external_id=f"{source}/{number}.md",
        content_hash=f"{number:064x}",
        url=url,
        version="3f2a91c",
        dense=scores[1],
        sparse=scores[2],
        highlights=tuple(marks),
    )


VOLUME = _hit(
    1,
    "KubePersistentVolumeFillingUp",
    ("Mitigation", "Data retention"),
    "Deleting data that is no longer needed is the fastest and the cheapest solution. Ask the service owner "
    "which old data can go, and enable retention for snapshots before anything else is changed.",
    ("Deleting data", "retention"),
    "runbook",
    "alert-runbooks",
    (0.91, 0.742, 11.83),
    "https://runbooks.example.org/kubernetes/KubePersistentVolumeFillingUp",
)
RESIZE = _hit(
    2,
    "KubePersistentVolumeFillingUp",
    ("Mitigation", "Direct volume resizing"),
    "When the storage class allows expansion, raise the requested size of the claim and wait until the file "
    "system has grown. Whether it is allowed shows in the column ALLOWVOLUMEEXPANSION of the storage class.",
    ("storage class", "expansion"),
    "runbook",
    "alert-runbooks",
    (0.84, 0.701, 9.41),
    "https://runbooks.example.org/kubernetes/KubePersistentVolumeFillingUp",
)
REBALANCE = _hit(
    3,
    "KubePersistentVolumeFillingUp",
    ("Mitigation", "Data rebalance in the cluster"),
    "Some services spread their data over all nodes when one fills up. Where that is supported, add replicas "
    "and wait for the migration, or start it by hand.",
    ("data",),
    "runbook",
    "alert-runbooks",
    (0.71, 0.655, 6.02),
    "https://runbooks.example.org/kubernetes/KubePersistentVolumeFillingUp",
)
RETENTION = _hit(
    4,
    "Compactor",
    ("Components", "Compactor", "Retention"),
    "Retention is set per resolution. Downsampled blocks can be kept for much longer than raw ones, as they "
    "take a fraction of the space; the default keeps everything forever.",
    ("Retention", "raw"),
    "documentation",
    "thanos-docs",
    (0.58, 0.611, 4.77),
    "https://thanos.example.org/components/compact.md",
)
PLAYBOOK = _hit(
    5,
    "Design reviews",
    ("Engineering playbook", "Design", "When to write one"),
    "A design document pays off when more than one team is touched, when the decision is hard to reverse, or "
    "when the reasons would be asked for again in half a year.",
    ("design",),
    "playbook",
    "engineering-playbook",
    (0.44, 0.507, None),
)
HOSTILE = _hit(
    6,
    HOSTILE_TITLE,
    (HOSTILE_TITLE, "Résumé 🚀"),
    "🚀 " + HOSTILE_TEXT,
    ("<script>", "onerror"),
    "wiki",
    HOSTILE_TITLE,
    (0.99, 0.9, 14.0),
    "javascript:window.hacked=1",
)

HITS = (VOLUME, RESIZE, REBALANCE, RETENTION, PLAYBOOK)
ALL_HITS = {hit.chunk_id: hit for hit in (*HITS, HOSTILE)}

BEFORE = (
    "Check how the usage grew over the last days, and whether snapshots or automatic retention are set up."
)
AFTER = "Tell the owner of the service what was deleted, and write down until when the space will last."

ANSWER = """Start with the cheapest step and go on only when it is not enough:

1. **Delete what is no longer needed.** It is the fastest solution; ask the service owner first and enable \
retention for snapshots [1].
2. **Resize the volume.** When the storage class allows expansion, raise the size of the claim and wait until \
the file system has grown [2].
3. **Rebalance.** Services that spread their data can be given more replicas [3].

Check first whether expansion is allowed:

```sh
kubectl get storageclass
```
"""

HOSTILE_ANSWER = HOSTILE_TEXT + "\n\n**Still [1] readable.**\n"

NOTHING = "Nothing in the connected sources answers this question."

MODELS = ("assistant", "auto", "smollm2-135m-instruct", "broken", "all-MiniLM-L6-v2")

SECTIONS = (
    (
        "Summary",
        "Volumes that nobody has used for 14 days are snapshotted and deleted after their owner was asked.\n\n"
        "It is for the 40 platform engineers and every team with a namespace.",
    ),
    (
        "Motivation",
        "On-call is paged for volumes that nobody uses. Deleting data that is no longer needed is the fastest "
        "and the cheapest solution [1].\n\n"
        "Today this is done by hand, after the alert has fired [1][2].",
    ),
    (
        "Goals",
        "- Volumes unused for 14 days are gone within a day.\n- Nothing is deleted without a snapshot.\n"
        "- [NEEDS CLARIFICATION: Which measurement shows that it works, and from which value to which?]",
    ),
    (
        "Design details",
        "A controller lists the claims of every namespace once an hour. A claim without a pod for 14 days is a "
        "candidate.\n\n| state | next | after |\n|---|---|---|\n| idle | owner asked | 14 days |\n"
        "| asked | snapshot | 7 days |\n| snapshotted | deleted | 1 day |\n\n"
        "Retention is set per resolution, and downsampled data may stay longer [3].",
    ),
    (
        "Risks and mitigations",
        "Data that is needed once a year looks idle. The snapshot is therefore kept for a year, and "
        "restoring it is one command:\n\n```sh\nkubectl apply -f restore.yaml\n```",
    ),
    (
        "Rollout and rollback",
        "1. Report only, for four weeks.\n2. Delete in the namespaces of the platform team.\n3. Everywhere.\n\n"
        "Each step is one setting and can be taken back [4].",
    ),
)

RFC_SOURCES = (VOLUME, RESIZE, RETENTION, PLAYBOOK)


def citations(*hits: Hit) -> tuple[Citation, ...]:
    return tuple(
        Citation(
            marker=n,
            chunk_id=hit.chunk_id,
            document_id=hit.document_id,
            title=hit.title,
            headings=hit.headings,
            start=hit.start,
            end=hit.end,
            quote=hit.text.split(". ")[0] + ".",
            content_hash=hit.content_hash,
            url=hit.url,
            version=hit.version,
        )
        for n, hit in enumerate(hits, 1)
    )
