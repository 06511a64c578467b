"""add fidelity to the reference"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

COLUMNS = ("kl", "kl_low", "kl_high", "kl_p99", "top1_agreement", "right_to_wrong", "wrong_to_right")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("run_stage", sa.Column(name, sa.Double(), nullable=True))
