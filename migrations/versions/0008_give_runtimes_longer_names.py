"""give runtimes longer names, with their settings"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("latency", "champion"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.alter_column("runtime", existing_type=sa.String(40), type_=sa.String(200), existing_nullable=False)
