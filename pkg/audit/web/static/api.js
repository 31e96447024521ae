// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { parameters } from "./address.js";

/** The server's view of a state. */
export const fetchView = (state, signal) => fetchJSON(`api/view?${parameters(state)}`, signal);

/** All fields of a record, and the advice. */
export const fetchRecord = (id) => fetchJSON(`api/records/${encodeURIComponent(id)}`);

async function fetchJSON(address, signal) {
  let response;
  try {
    response = await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("apigw-guardian audit web does not answer.");
  }
  if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
    throw new Error(`apigw-guardian audit web answers ${response.status} ${response.statusText}.`);
  }
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(answer.error);
  }
  return answer;
}

/**
 * Listens for changes while the page is visible: a browser opens few connections to one server, and a hidden tab must not
 * hold one. changed gets each signal. broken is called when the server does not answer.
 */
export function listen({ changed, broken }) {
  let source = null;
  const open = () => {
    source = new EventSource("api/events");
    source.addEventListener("records", (event) => changed(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      broken();
      if (source.readyState === EventSource.CLOSED) {
        // The answer was not a stream: another server, or another token. The browser does not retry.
        setTimeout(follow, 2000);
      }
    });
  };
  const follow = () => {
    source?.close();
    source = null;
    if (!document.hidden) {
      open();
    }
  };
  document.addEventListener("visibilitychange", follow);
  follow();
}
