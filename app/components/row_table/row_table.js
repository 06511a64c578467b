// Draws the table of app/components/row_table, and reports selection and sort order.

const ticked = new WeakMap(); // ids of the selected rows, by the parent element of the table

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  const before = parentElement.querySelector(".rows");
  const selected = ticked.get(parentElement) ?? new Set();
  ticked.set(parentElement, selected);

  const select = (ids, on) => {
    for (const id of ids) on ? selected.add(id) : selected.delete(id);
    setStateValue("selected", [...selected]);
  };

  const rows = make("div", "rows");
  const table = rows.appendChild(make("table"));
  table.appendChild(make("caption", "", data.caption));
  const boxes = drawBody(table, data, selected, select);
  drawHead(table, data, boxes, select, (order) => setTriggerValue("order", order));
  before ? before.replaceWith(rows) : parentElement.appendChild(rows);
  if (before) rows.scrollTo(before.scrollLeft, before.scrollTop);
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function drawHead(table, data, boxes, select, sort) {
  const head = table.createTHead().insertRow();
  if (data.selectable) {
    const all = makeBox("Select all rows", boxes.length > 0 && boxes.every((box) => box.checked));
    all.onchange = () => {
      for (const box of boxes) box.checked = all.checked;
      select(data.rows.map((row) => row.id), all.checked);
    };
    head.appendChild(make("th")).appendChild(all);
  }
  for (const { name, orders, wraps } of data.columns) {
    const cell = head.appendChild(make("th", wraps ? "wraps" : ""));
    cell.scope = "col";
    if (!orders.length) {
      cell.textContent = name;
      continue;
    }
    const place = orders.findIndex(([order]) => order === data.order);
    const button = cell.appendChild(make("button", "", name));
    if (place >= 0) cell.setAttribute("aria-sort", orders[place][1]);
    button.onclick = () => sort(orders[(place + 1) % orders.length][0]);
  }
}

function drawBody(table, data, selected, select) {
  const body = table.createTBody();
  return data.rows.map((row) => {
    const line = body.insertRow();
    const box = makeBox(`Select ${row.id}`, selected.has(row.id));
    box.onchange = () => select([row.id], box.checked);
    if (data.selectable) line.insertCell().appendChild(box);
    data.columns.forEach((column, place) => {
      const cell = line.insertCell();
      if (column.wraps) cell.className = "wraps";
      cell.appendChild(makeContent(column, row, row.cells[place]));
      cell.title = row.cells[place];
    });
    return box;
  });
}

function makeBox(label, checked) {
  const box = make("input");
  box.type = "checkbox";
  box.checked = checked;
  box.setAttribute("aria-label", label);
  return box;
}

function makeContent(column, row, text) {
  if (column.link) {
    const link = make("a", "", text);
    link.href = column.link + row.id;
    return link;
  }
  const colour = new Map(column.colours).get(text);
  if (!colour) return document.createTextNode(text);
  const badge = make("span", "badge", text);
  badge.style.color = `var(--st-${colour}-text-color)`;
  badge.style.background = `var(--st-${colour}-background-color)`;
  return badge;
}
