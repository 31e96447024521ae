// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// The address has the page's state, so that a reader can keep, send and return to it.

/** The parts of a filter. range is an age; since and until are times in ISO 8601. */
export const filterNames = ["cluster", "text", "user", "resource", "operation", "outcome", "reason", "seen", "range", "since", "until"];

const names = [...filterNames, "page", "record"];

const hour = 3600_000;
const ranges = { "1h": hour, "24h": 24 * hour, "7d": 7 * 24 * hour, "30d": 30 * 24 * hour };

/** The state in the address. Absent parts are "". */
export function read() {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(names.map((name) => [name, given.get(name) ?? ""]));
}

/** Writes the state into the address, as a new entry of the history or in place of the last one. */
export function write(state, { replace = false } = {}) {
  const query = new URLSearchParams(names.filter((name) => state[name]).map((name) => [name, state[name]]));
  const address = query.size > 0 ? `?${query}` : location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", address);
}

/** The parameters of the request for the state. */
export function parameters(state) {
  const query = new URLSearchParams({ zone: Intl.DateTimeFormat().resolvedOptions().timeZone });
  for (const name of ["cluster", "text", "user", "resource", "operation", "outcome", "reason", "seen", "since", "until", "page"]) {
    if (state[name]) {
      query.set(name, state[name]);
    }
  }
  if (state.range in ranges) {
    query.set("since", new Date(Date.now() - ranges[state.range]).toISOString());
  }
  return query;
}
