"""add champions of devices"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "champion",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("task_hash", sa.String(length=64), nullable=False),
        sa.Column("hardware", sa.String(length=200), nullable=False),
        sa.Column("runtime", sa.String(length=40), nullable=False),
        sa.Column("threads", ID, nullable=False),
        sa.Column("batch", ID, nullable=False),
        sa.Column("length", ID, nullable=True),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("stage_id", ID, nullable=True),
        sa.Column("run_id", ID, nullable=True),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_champion_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_champion_run_id")),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_champion_stage_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_champion_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_champion")),
    )
    op.create_index("ix_champion_project_id_task_hash", "champion", ["project_id", "task_hash", "id"])
    op.create_index(op.f("ix_champion_stage_id"), "champion", ["stage_id"])
