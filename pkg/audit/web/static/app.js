// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// The page: it requests the view of the state in the address, and each part shows its share of the answer.

import * as address from "./address.js";
import { fetchView, listen } from "./api.js";
import * as clusters from "./clusters.js";
import * as details from "./details.js";
import { byId } from "./dom.js";
import * as filters from "./filters.js";
import { objectLabel, plural, timeOfDay, userLabel, userParts } from "./format.js";
import * as ranking from "./ranking.js";
import * as table from "./table.js";
import * as timeline from "./timeline.js";

let state = address.read();
let view = null;
// The question of the current view. Views of different questions are not compared.
let answered = "";
// The request under way.
let asking = null;
// The latest revision of the records that the server has sent.
let revision = -1;

/** Changes parts of the state; the page of a new filter is the first one. */
function change(parts, options) {
  state = { ...state, page: "", ...parts };
  address.write(state, options);
  refresh();
}

/** Requests the view again. Only the last request counts. */
async function refresh() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const question = questionOf(state);
  const answer = await fetchView(state, mine.signal).catch((error) => ({ error }));
  await pressing;
  if (asking !== mine) {
    return;
  }
  asking = null;
  if (answer.error) {
    complain(answer.error.message);
    return;
  }
  show(answer, question);
  if (isOutdated()) {
    refresh();
  }
}

/** The part of the state that selects the view. An open record does not. */
const questionOf = (state) => JSON.stringify({ ...state, record: "" });

const isOutdated = () => !view || view.revision < revision || answered !== questionOf(state);

/** Refreshes the view unless a request is under way: with changes faster than answers, no answer would be shown. */
function keepUp() {
  if (!asking) {
    refresh();
  }
}

// A button must stay until the pointer is released: a button that is replaced meanwhile gets no click.
let pressing = Promise.resolve();
const longestPress = 10_000; // the page may not see a release outside the window

document.addEventListener("pointerdown", () => {
  pressing = new Promise((resolve) => {
    setTimeout(resolve, longestPress);
    const end = () => setTimeout(resolve); // the click comes after the release
    document.addEventListener("pointerup", end, { once: true });
    document.addEventListener("pointercancel", end, { once: true });
  });
});

function show(answer, question) {
  const news = question === answered && view ? newsBetween(view, answer) : { fresh: new Set(), writes: 0 };
  view = answer;
  answered = question;
  document.title = `Recorded requests – ${view.cluster}`;
  byId("cluster").textContent = view.cluster;
  showLost(view.lost);
  showGuard(view.guard);
  clusters.show(view, state.cluster, (cluster) => change({ cluster }));
  filters.show(state, view);
  timeline.show(view.timeline);
  ranking.show("users", {
    ranking: view.users, of: ["user", "users"], filter: state.user, chosen: (user) => change({ user }),
    label: ({ name }) => userParts(name),
  });
  ranking.show("resources", {
    ranking: view.resources, of: ["resource", "resources"], filter: state.resource, chosen: (resource) => change({ resource }),
    label: ({ object }) => objectLabel(object),
  });
  table.show(view, news.fresh, clear);
  announce(news);
}

/** The rows that are new or count more, and the number of new writes. */
function newsBetween(before, after) {
  const counts = new Map(before.rows.map(({ id, count }) => [id, count]));
  const fresh = after.rows.filter(({ id, count }) => after.page === before.page && (counts.get(id) ?? 0) < count);
  // A row that only moved up from the next page is no news.
  const newest = before.rows[0]?.lastTime ?? "";
  return {
    fresh: new Set(fresh.filter(({ lastTime }) => lastTime > newest).map(({ id }) => id)),
    writes: after.writes - before.writes,
  };
}

function announce({ writes }) {
  if (writes > 0) {
    const latest = view.page === 1 ? view.rows[0] : null;
    byId("announcement").textContent = latest
      ? `${plural(writes, "new write", "new writes")}. The latest: ${userLabel(latest.user)}, ${latest.operation}, ${latest.resource}, ${latest.outcome}.`
      : `${plural(writes, "new write", "new writes")}.`;
  }
}

function clear() {
  change(Object.fromEntries(address.filterNames.map((name) => [name, ""])));
  filters.focusSearch();
}

function complain(message) {
  byId("loading").hidden = true;
  byId("problem").hidden = false;
  byId("problem").textContent = message;
}

/** Shows whether the cluster can be read. */
function showLost(lost) {
  connect(lost ? "lost" : "live");
  if (lost) {
    complain(`The cluster cannot be read, so this page may be out of date. Trying again. (${lost})`);
  } else {
    byId("problem").hidden = true;
  }
}

const guards = { up: "Guard up", down: "Guard down", unknown: "Guard not known" };

function showGuard({ state, text }) {
  const guard = byId("guard");
  guard.hidden = state === "";
  guard.dataset.state = { up: "live", down: "lost" }[state] ?? "unknown";
  guard.title = text;
  guard.textContent = guards[state] ?? "";
}

const connections = { connecting: "Connecting…", live: "Live", lost: "Connection lost" };

function connect(to) {
  const connection = byId("connection");
  if (connection.dataset.state !== to) {
    connection.dataset.state = to;
    connection.textContent = connections[to];
  }
}

// Turning pages and opening records.

function turn(where) {
  const page = { first: 1, previous: view.page - 1, next: view.page + 1, last: view.pages }[where];
  if (page >= 1 && page <= view.pages && page !== view.page) {
    change({ page: page === 1 ? "" : String(page) });
  }
}

function open(record, options) {
  state = { ...state, record };
  address.write(state, options);
  details.show(record);
}

function step(direction) {
  const at = view.rows.findIndex(({ id }) => id === details.open());
  const next = view.rows[at + direction];
  if (at >= 0 && next) {
    open(next.id, { replace: true });
  }
}

function closed(id) {
  if (state.record !== "") {
    state = { ...state, record: "" };
    address.write(state, { replace: true });
  }
  table.focus(id);
}

// Input: keys, the browser's history, the server's signals, time.

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing && !details.open() && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    filters.focusSearch();
  }
  // Before anything has the focus, the keys of the table work too.
  const isFree = document.activeElement === document.body && !details.open() && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (isFree && (event.key === "ArrowDown" || event.key === "ArrowUp") && table.selected()) {
    event.preventDefault();
    table.focusCurrent();
  } else if (isFree && event.key === "Enter" && table.selected()) {
    event.preventDefault();
    open(table.selected());
  }
});

window.addEventListener("popstate", () => {
  state = address.read();
  if (state.record) {
    details.show(state.record);
  } else {
    details.close();
  }
  refresh();
});

function onSignal(signal) {
  showLost(signal.lost);
  showGuard(signal.guard);
  revision = signal.revision;
  if (isOutdated()) {
    keepUp();
  }
}

function onBroken() {
  if (byId("connection").dataset.state !== "lost") {
    complain(`Since ${timeOfDay(new Date())}, apigw-guardian audit web does not answer: this page may be out of date. Trying again. If it has ended, start it again: it then has a new address.`);
  }
  connect("lost");
  showGuard({ state: "", text: "" }); // what was known is out of date
}

// The end of the timeline is now, and so is that of "the last hour".
const minute = 60_000;
setInterval(() => {
  if (!document.hidden && view && state.until === "" && byId("connection").dataset.state === "live") {
    keepUp();
  }
}, minute);

filters.setUp(change);
timeline.setUp((since, until) => change({ range: "", since, until }));
table.setUp({ open, turn });
details.setUp({ closed, step, narrow: change });
refresh();
listen({ changed: onSignal, broken: onBroken });
if (state.record) {
  details.show(state.record);
}
