"""add the bytes of the checkpoint that a source was loaded from"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("stage", sa.Column("checkpoint_bytes", ID, nullable=True))
