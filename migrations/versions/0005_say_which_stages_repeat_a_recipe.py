"""say which stages repeat a recipe with other seeds"""

import sqlalchemy as sa
from alembic import op

from core.store.recipe_hashes import fill

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("stage", sa.Column("recipe_hash", ID, nullable=True))
    op.add_column("stage", sa.Column("seeds_hash", ID, nullable=True))
    op.create_index("ix_stage_recipe_hash", "stage", ["recipe_hash", "seeds_hash"])
    fill(op.get_bind())
