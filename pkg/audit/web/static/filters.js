// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { filterNames } from "./address.js";
import { byId, element } from "./dom.js";
import { isAllowed, number, outcomeLabel, outcomeOrder } from "./format.js";

const form = byId("filters");
const typingPause = 250;

// The field that the reader is typing in, until a pause; and the field of the last entry of the history, until the reader
// leaves it: a slowly typed word is one entry.
let typing = null;
let typed = null;

/** The fields above the records. changed gets the changed parts of the state, and the options for the history. */
export function setUp(changed) {
  let pause = 0;
  form.addEventListener("input", ({ target }) => {
    clearTimeout(pause);
    typing = target;
    pause = setTimeout(() => {
      typing = null;
      changed(chosen(target), { replace: typed === target });
      typed = target;
    }, target.type === "search" ? typingPause : 0);
  });
  form.addEventListener("focusout", () => {
    typed = null;
  });
  byId("more").addEventListener("click", ({ target }) => {
    target.setAttribute("aria-expanded", target.getAttribute("aria-expanded") === "false");
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    typed = null;
    changed(Object.fromEntries(filterNames.map((name) => [name, ""])));
    form.elements.text.focus();
  });
  for (const button of form.querySelectorAll("[data-range]")) {
    button.addEventListener("click", () => changed({ range: button.dataset.range, since: "", until: "" }));
  }
  byId("outcomes").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button) {
      changed({ outcome: button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.outcome });
    }
  });
}

function chosen({ name, value }) {
  if (name !== "since" && name !== "until") {
    return { [name]: value };
  }
  const at = new Date(value);
  return { range: "", [name]: Number.isNaN(at.getTime()) ? "" : at.toISOString() };
}

export function focusSearch() {
  form.elements.text.focus();
  form.elements.text.select();
}

/** Shows the state in the fields, except the one that the reader is typing in. */
export function show(state, view) {
  for (const name of ["text", "user", "resource"]) {
    setValue(form.elements[name], state[name]);
  }
  for (const name of ["since", "until"]) {
    setValue(form.elements[name], localTime(state[name]));
  }
  showChoices(form.elements.operation, view.choices.operations, state.operation);
  showChoices(form.elements.reason, view.choices.reasons, state.reason);
  form.elements.seen.value = state.seen;
  for (const button of form.querySelectorAll("[data-range]")) {
    const custom = state.since !== "" || state.until !== "";
    button.setAttribute("aria-pressed", !custom && button.dataset.range === state.range);
  }
  byId("clear").disabled = filterNames.every((name) => state[name] === "");
  showOutcomes(state, view);
}

function setValue(field, value) {
  if (field !== typing && field.value !== value) {
    field.value = value;
  }
}

/** A time for the browser's field: in the machine's time zone, without its name. */
function localTime(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? "" : new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function showChoices(select, words, selected) {
  const all = selected && !words.includes(selected) ? [...words, selected] : words;
  if (select.options.length !== all.length + 1 || select.dataset.words !== all.join()) {
    select.dataset.words = all.join();
    select.replaceChildren(element("option", { value: "" }, "Any"), ...all.map((word) => element("option", { value: word }, word)));
  }
  select.value = selected;
}

function showOutcomes(state, view) {
  const counts = new Map(view.outcomes.map(({ name, count }) => [name, count]));
  const focused = document.activeElement?.dataset.outcome;
  const buttons = outcomeOrder.map((outcome) =>
    element(
      "button",
      { type: "button", class: "outcome", "data-outcome": outcome, "aria-pressed": state.outcome === outcome, disabled: isIdle(outcome) },
      element("span", { class: "dot" }),
      outcomeLabel(outcome),
      element("span", { class: "number" }, number(counts.get(outcome) ?? 0)),
    ),
  );
  const firstAllowed = outcomeOrder.findIndex(isAllowed);
  byId("outcomes").replaceChildren(
    element("div", {}, element("span", { class: "muted" }, "Denied or unguarded"), ...buttons.slice(0, firstAllowed)),
    element("div", {}, element("span", { class: "muted" }, "Allowed"), ...buttons.slice(firstAllowed)),
  );
  buttons.find((button) => button.dataset.outcome === focused)?.focus();

  function isIdle(outcome) {
    return !counts.has(outcome) && state.outcome !== outcome;
  }
}
