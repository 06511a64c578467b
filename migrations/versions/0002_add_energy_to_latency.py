"""add energy to latency"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("latency", schema=None) as batch_op:
        batch_op.add_column(sa.Column("energy_mj", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("reference_energy_mj", sa.Double(), nullable=True))
