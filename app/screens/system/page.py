"""Store, queue, workers, disk and versions, with problems and their remedies."""

from typing import Any

import pandas as pd
import streamlit as st

from app.actions import members
from app.components import wrapped_table
from app.queries.projects import load_members, load_projects
from app.queries.runs import load_waiting
from app.queries.system import forget_system, load_store_state, load_workers
from app.screens.system import checks
from app.text import formats
from app.text import workers as worker_words
from app.web import identity
from core.settings import settings
from core.store.models import Role

actor = identity.require_actor()
store = load_store_state()
workers = load_workers()
queue = checks.ask_queue(settings().redis_url)
disk = checks.look_at_disk(settings().artifacts_url)
troubles = checks.find_troubles(queue, disk, store["revision"], workers, load_waiting())

head, again = st.columns([6, 1], vertical_alignment="bottom")
head.title("System")
if again.button("Refresh", icon=":material/refresh:", width="stretch"):
    forget_system()
    st.rerun()

if not troubles:
    st.success("No problems found.", icon=":material/check_circle:")
for trouble in troubles:
    show, icon = (st.error, ":material/error:") if trouble.serious else (st.warning, ":material/warning:")
    show(f"**{trouble.what}**  \n{trouble.remedy}", icon=icon)

first, second, third, fourth = st.columns(4)
plain: dict[str, Any] = {"delta_color": "off", "delta_arrow": "off", "border": True}
dialect = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[store["dialect"]]
first.metric("Store", formats.size(store["bytes"]), dialect, **plain)
answer = "Redis is not responding" if queue.error else f"Redis responds in {formats.milliseconds(queue.ping_ms)}"
second.metric("Queue", "unreachable" if queue.error else f"{store['queued']} queued", answer, **plain)
living = [worker for worker in workers if not worker["lost"] and worker["stopped_at"] is None]
busy = sum(worker["run_id"] is not None for worker in living)
third.metric("Workers", len(living), f"{busy} busy", **plain)
free = "free space unknown" if disk.free_bytes is None else f"{formats.size(disk.free_bytes)} free"
fourth.metric("Artifacts", formats.size(store["artifact_bytes"]), free, **plain)

st.subheader("Workers")
if workers:
    rows = [
        {
            "Worker": worker["name"],
            "Device": worker["device"],
            "State": worker_words.describe_state(worker),
            "Activity": worker_words.describe_activity(worker),
            "Last seen": f"{formats.duration(worker['age'])} ago",
            "Hardware": worker_words.describe_hardware(worker["hardware"]),
            "Software": worker_words.describe_software(worker["hardware"]),
            "Techniques": str(sum(name.startswith("technique:") for name in worker["offers"])),
        }
        for worker in workers
    ]
    wrapped_table.show(pd.DataFrame(rows))
    with st.expander("Hardware details"):
        for worker in workers:
            provides = formats.plain(", ".join(worker["provides"]) or "no optional features")
            st.markdown(f"**{formats.plain(worker['name'])}** provides {provides}")
            st.json(worker["hardware"], expanded=False)
else:
    st.caption("No workers have registered yet.")

left, right = st.columns(2, gap="large")
with left:
    st.subheader("Store and queue")
    st.table(
        {
            "Store": store["address"],
            "Schema": checks.describe_schema(*store["revision"]),
            "Rows": f"{formats.plural(store['runs'], 'run')}, {formats.plural(store['stages'], 'stage')}",
            "Redis": queue.error or f"{queue.version}, {formats.size(queue.memory_bytes)} in use",
            "Waiting messages": ", ".join(f"{n} {name}" for name, n in queue.messages.items()) or formats.NOTHING,
            "Artifacts": disk.address,
            "Disk": f"{free} of {formats.size(disk.total_bytes)}",
            "Authentication": "none (everyone is the user local)" if settings().auth == "none" else settings().auth,
        },
        border="horizontal",
    )
with right:
    st.subheader("Front-end versions")
    st.table(checks.list_versions(), border="horizontal")

if actor.role == Role.OWNER and settings().auth != "none":
    st.subheader(f"Members of {actor.project.name}")
    for member_id, name, role in load_members(actor.project.id):
        who, what = st.columns([3, 1])
        who.text(name)
        roles = [None, *Role]
        chosen = what.selectbox(
            f"Role of {name}",
            roles,
            index=roles.index(role),
            format_func=lambda role: role.value if role else "no role",
            label_visibility="collapsed",
        )
        if chosen != role:
            try:
                members.set_role(actor, member_id, chosen)
                load_members.clear()
                load_projects.clear()
                st.toast(f"{formats.plain(name)} {f'is now {chosen.value}' if chosen else 'no longer has a role'}.")
            except ValueError as error:
                st.error(str(error))
