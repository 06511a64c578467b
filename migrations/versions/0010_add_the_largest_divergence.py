"""add the largest divergence from the reference"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_stage", sa.Column("kl_max", sa.Double(), nullable=True))
