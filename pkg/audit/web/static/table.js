// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { byId, element } from "./dom.js";
import { badge, number, objectLabel, plural, timeLines, userLabel, userParts, zone } from "./format.js";

const body = byId("rows");

// The id of a row. Tab reaches one row, and the arrow keys the others, as in a desktop list.
let current = "";

/** The table. open gets the id of a record, turn a page: "first", "previous", "next", "last". */
export function setUp({ open, turn }) {
  body.addEventListener("click", ({ target }) => {
    const row = target.closest("tr");
    if (row && getSelection().isCollapsed) {
      open(row.dataset.id);
    }
  });
  body.addEventListener("focusin", ({ target }) => setCurrent(target.closest("tr").dataset.id));
  body.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    event.preventDefault();
    if (typeof move === "string") {
      turn(move);
    } else {
      const rows = [...body.rows];
      focusRow(rows[move(rows.findIndex((row) => row.dataset.id === current), rows.length - 1)]);
    }
  });
  byId("pager").addEventListener("click", ({ target }) => {
    if (target.dataset.go) {
      turn(target.dataset.go);
    }
  });
}

const moves = {
  ArrowDown: (at, last) => Math.min(at + 1, last),
  ArrowUp: (at) => Math.max(at - 1, 0),
  Home: () => 0,
  End: (_, last) => last,
  PageDown: "next",
  PageUp: "previous",
};

/** Shows the records of a view, and highlights those in fresh for a moment. */
export function show(view, fresh, clear) {
  byId("loading").hidden = true;
  byId("zone").textContent = `Last seen (${zone()})`;
  const hadFocus = body.contains(document.activeElement);
  body.replaceChildren(...view.rows.map((record) => row(record, fresh.has(record.id))));
  byId("matched").textContent = `${plural(view.writes, "write", "writes")} in ${plural(view.records, "record", "records")}`;
  showEmpty(view, clear);
  showPager(view);
  setCurrent(view.rows.some(({ id }) => id === current) ? current : view.rows[0]?.id);
  if (hadFocus) {
    focusCurrent();
  }
}

/** Puts the focus on the row of a record, or on the first one. */
export function focus(id) {
  setCurrent(id);
  focusCurrent();
}

/** The id of the row that Enter opens. */
export const selected = () => current;

export function focusCurrent() {
  focusRow([...body.rows].find((row) => row.dataset.id === current) ?? body.rows[0]);
}

function focusRow(row) {
  row?.querySelector("button").focus();
}

function setCurrent(id) {
  current = id ?? "";
  for (const row of body.rows) {
    row.querySelector("button").tabIndex = row.dataset.id === current ? 0 : -1;
  }
}

function row(record, isFresh) {
  const resource = objectLabel(record.object);
  const user = userParts(record.user);
  const operation = record.operation || "–";
  const label = `${resource.name}${record.cluster ? ` in ${record.cluster}` : ""}: ${record.outcome}, ${operation}, by ${userLabel(record.user)}${record.caller === "Unverified" ? ", caller not verified" : ""}${record.acknowledgedBy ? `, acknowledged by ${record.acknowledgedBy}` : ""}`;
  return element(
    "tr",
    { "data-id": record.id, class: isFresh && "fresh" },
    element("td", { class: "when" }, timeLines(record.lastTime)),
    element("td", { class: "what", "data-operation": operation }, badge(record.outcome), record.acknowledgedBy && element("span", { class: "seen", title: `Acknowledged by ${record.acknowledgedBy}` }, "Acknowledged")),
    element("td", { class: "operation" }, operation),
    element(
      "td",
      { class: "resource", title: record.resource },
      element("button", { type: "button", tabindex: -1, "aria-label": label }, resource.name),
      element("span", { class: "muted" }, resource.detail),
      record.cluster && element("span", { class: "cluster" }, record.cluster),
    ),
    element("td", { class: "user", title: record.user }, user.name, user.detail && element("span", { class: "muted" }, user.detail), record.person && element("span", { class: "muted" }, record.person), record.caller === "Unverified" ? element("span", { class: "muted" }, "caller not verified") : ""),
    element("td", { class: "reason" }, record.reason),
    element("td", { class: "number" }, number(record.count)),
  );
}

function showEmpty(view, clear) {
  const empty = byId("empty");
  empty.hidden = view.rows.length > 0;
  if (view.rows.length > 0) {
    return;
  }
  if (view.stored === 0) {
    const isKnown = (view.clusters ?? [view]).every(({ lost, guard }) => !lost && guard.state === "up");
    empty.replaceChildren(
      element("h3", {}, "No request is recorded"),
      element("p", { class: "muted" }, isKnown
        ? "The records hold no write to a reserved resource. A denial shows up here as it happens."
        : `Writes may be missing here: the guard records them, and it is not known to run${view.clusters ? " in every cluster" : ""}.`),
    );
    return;
  }
  const isPartial = view.clusters?.some(({ lost }) => lost);
  empty.replaceChildren(
    element("h3", {}, "No record fits this filter"),
    element("p", { class: "muted" }, `There ${view.stored === 1 ? "is 1 record" : `are ${number(view.stored)} records`} without it.${isPartial ? " The records of clusters that cannot be read are missing." : ""}`),
    element("button", { type: "button", onclick: clear }, "Clear filter"),
  );
}

function showPager(view) {
  byId("pager").hidden = view.pages === 1;
  const first = (view.page - 1) * view.size + 1;
  byId("shown").textContent = `${number(first)} to ${number(first + view.rows.length - 1)} of ${number(view.records)}`;
  byId("page").textContent = `Page ${number(view.page)} of ${number(view.pages)}`;
  for (const button of byId("pager").querySelectorAll("button")) {
    const backward = button.dataset.go === "first" || button.dataset.go === "previous";
    button.disabled = backward ? view.page === 1 : view.page === view.pages;
  }
}
