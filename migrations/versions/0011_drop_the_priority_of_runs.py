"""drop the priority of runs, which nothing set: the position alone orders the queue"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_run_queue", table_name="run")
    op.drop_column("run", "priority")
    op.create_index("ix_run_queue", "run", ["status", "position", "id"])
