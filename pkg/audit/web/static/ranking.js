// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { byId, element } from "./dom.js";
import { number, plural } from "./format.js";

/** A name over a detail. */
const twoLines = ({ name, detail }) =>
  element("span", { class: "name" }, element("span", {}, name), detail && element("span", { class: "muted" }, detail));

/**
 * Shows names with the most writes as buttons with a bar behind them. A name that is the filter already is pressed; chosen
 * gets the new filter: the name in quotes, which means exactly this one, or "".
 */
export function show(id, { ranking, label, filter, chosen, of }) {
  const focused = byId(id).contains(document.activeElement) ? document.activeElement.dataset.name : null;
  const most = ranking.top[0]?.count ?? 1;
  const buttons = ranking.top.map((tally) => {
    const { name, count } = tally;
    const exact = `"${name}"`;
    const button = element(
      "button",
      {
        type: "button",
        "data-name": name,
        title: name,
        "aria-pressed": filter === exact,
        onclick: () => chosen(filter === exact ? "" : exact),
      },
      twoLines(label(tally)),
      element("span", { class: "number" }, number(count)),
    );
    button.style.setProperty("--share", count / most);
    return button;
  });
  const items = buttons.map((button) => element("li", {}, button));
  byId(id).replaceChildren(...(items.length > 0 ? items : [element("li", { class: "none" }, "None")]));
  byId(`${id}-of`).textContent = ranking.of > ranking.top.length ? `${ranking.top.length} of ${plural(ranking.of, ...of)}` : "";
  buttons.find((button) => button.dataset.name === focused)?.focus();
}
