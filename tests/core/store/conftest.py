"""Every test of the store runs on SQLite and on Postgres."""

from tests.stores import empty_url, postgres, session, store_url, templates

__all__ = ["empty_url", "postgres", "session", "store_url", "templates"]
