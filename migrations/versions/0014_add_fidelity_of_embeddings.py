"""add how close a stage's embeddings are to its reference's"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ADDED = (
    "cosine",
    "cosine_low",
    "cosine_high",
    "cosine_min",
    "neighbours_kept",
    "neighbours_kept_low",
    "neighbours_kept_high",
)


def upgrade() -> None:
    for name in ADDED:
        op.add_column("run_stage", sa.Column(name, sa.Double(), nullable=True))
