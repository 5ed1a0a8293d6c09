"""What the knowledge base holds, and who asks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from serve_app.api.auth import Caller, Graph
from serve_app.api.schemas import DocumentItem, DocumentPage, Me, SourceItem, SourceList

MAX_PAGE = 200
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]

router = APIRouter(prefix="/api/v1", tags=["Knowledge"])


@router.get("/documents", summary="Documents that the caller may read, newest first")
async def documents(
    graph: Graph, caller: Caller, cursor: UUID | None = None, limit: Limit = 50, source_id: UUID | None = None
) -> DocumentPage:
    page = await graph.documents.page(cursor, limit, source_id, caller.acl_terms())
    return DocumentPage(items=[DocumentItem.of(d) for d in page.items], next_cursor=page.next_cursor)


@router.get("/sources", summary="Where the documents come from")
async def sources(graph: Graph, caller: Caller) -> SourceList:
    counts = await graph.sources.counts()
    items = []
    for source in await graph.sources.list():
        count = counts.get(source.name)
        items.append(
            SourceItem(
                id=source.id,
                name=source.name,
                source_type=source.source_type,
                kind=source.kind,
                status=source.status,
                documents=count.documents if count else 0,
                chunks=count.chunks if count else 0,
                pending=count.pending if count else 0,
                failed=count.failed if count else 0,
                updated_at=source.updated_at,
            )
        )
    return SourceList(items=items)


@router.get("/me", summary="Who the server takes the caller for")
async def me(graph: Graph, caller: Caller) -> Me:
    return Me(id=caller.id, kind=caller.kind, groups=caller.groups, auth=graph.settings.security.auth)
