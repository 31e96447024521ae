// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { byId, element } from "./dom.js";
import { number, plural } from "./format.js";

const root = byId("clusters");

/** Shows a button for each of several clusters; chosen gets the context that is the new filter, or "". */
export function show({ clusters = [] }, filter, chosen) {
  root.hidden = clusters.length === 0;
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.context : null;
  const buttons = clusters.map((cluster) => {
    const { context, records, writes } = cluster;
    const { state, detail } = describe(cluster);
    return element(
      "button",
      {
        type: "button",
        "data-context": context,
        "data-state": state,
        title: `${context}: ${detail}`,
        "aria-pressed": filter === context,
        onclick: () => chosen(filter === context ? "" : context),
      },
      element("span", { class: "name" }, context),
      (records > 0 || !["lost", "loading"].includes(state)) && // a cluster that was never read is not known to have none
        element("span", { class: "number", title: plural(records, "record", "records") }, plural(writes, "write", "writes")),
      element("span", { class: "detail" }, detail),
    );
  });
  root.querySelector("ol").replaceChildren(...buttons.map((button) => element("li", {}, button)));
  const lost = clusters.filter(({ lost }) => lost).length;
  byId("clusters-of").textContent = lost > 0 ? `${number(lost)} of ${plural(clusters.length, "cluster", "clusters")} cannot be read` : "";
  buttons.find((button) => button.dataset.context === focused)?.focus();
}

const guards = { up: "Guard up", down: "Guard down" };

function describe({ answered, lost, guard, denied }) {
  if (lost) {
    return { state: "lost", detail: `Cannot be read: ${lost}` };
  }
  if (!answered) {
    return { state: "loading", detail: "Loading…" };
  }
  const state = { up: "live", down: "down" }[guard.state] ?? "unknown";
  return { state, detail: [guards[guard.state] ?? "Guard not known", `${number(denied)} denied`].join(", ") };
}
