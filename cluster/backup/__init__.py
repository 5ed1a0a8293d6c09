"""Backups of one installation: a folder with a manifest, made beside what runs, and put back in one piece.

Postgres goes first and Qdrant second. A document that changes in between is then older in Postgres than its
chunks are, and the next ingestion brings it up to date; the other way round it would pass for done.
"""
