"""Runs the migrations on the connection that core/store/engine.py hands over, in its transaction."""

from alembic import context

from core.store.engine import engine
from core.store.models import Base


def migrate() -> None:
    """Apply the migrations to the given connection, or to the settings' store when called by the alembic command."""
    connection = context.config.attributes.get("connection")
    if connection is None:
        with engine().begin() as connection:
            _run(connection)
    else:
        _run(connection)


def _run(connection: object) -> None:
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=Base.metadata,
        transactional_ddl=True,  # in SQLite too: the engine begins its transactions itself
        render_as_batch=True,  # SQLite changes a column only by copying the table
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


migrate()
