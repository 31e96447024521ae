// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { fetchRecord } from "./api.js";
import { byId, element } from "./dom.js";
import { badge, number, plural, time, userLabel } from "./format.js";

const dialog = byId("details");

let shown = "";

/** The panel with all fields of a record. closed is called when it closes; step gets -1 or +1, narrow a part of the filter. */
export function setUp({ closed, step, narrow }) {
  dialog.addEventListener("close", () => {
    const id = shown;
    shown = "";
    closed(id);
  });
  dialog.addEventListener("click", (event) => {
    // Only a click outside the panel reaches the dialog itself.
    if (event.target === dialog) {
      dialog.close();
    }
    const { step: direction } = event.target.dataset;
    if (direction) {
      step(Number(direction));
    }
    const action = event.target.closest("[data-filter]");
    if (action) {
      dialog.close();
      const { filter, value } = action.dataset;
      narrow({ [filter]: filter === "text" ? value : `"${value}"` }); // a text has no exact form
    }
  });
  dialog.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (direction) {
      event.preventDefault();
      step(direction);
    }
  });
}

/** The id of the record that is open, or "". */
export const open = () => shown;

export function close() {
  if (dialog.open) {
    dialog.close();
  }
}

/** Opens the record, or shows it again. */
export async function show(id) {
  shown = id;
  let content;
  try {
    content = panel(await fetchRecord(id));
  } catch (error) {
    content = [heading("Record", id), element("p", { class: "banner" }, error.message)];
  }
  if (shown !== id) {
    return; // closed, or another one was opened meanwhile
  }
  const focused = document.activeElement?.dataset.step;
  dialog.replaceChildren(element("div", { class: "panel" }, ...content));
  dialog.scrollTop = 0;
  if (!dialog.open) {
    dialog.showModal();
  }
  dialog.querySelector(focused ? `[data-step="${focused}"]` : ".close").focus();
}

function panel({ cluster, target, name, spec, parts, acknowledged, acknowledgements }) {
  return [
    heading(badge(spec.outcome), spec.message || `${spec.operation} ${spec.resource}`),
    parts.length > 0 && element("section", { class: "advice" }, element("h3", {}, "What to do"), element("p", {}, ...parts.flatMap(({ text, command }) => (command ? copyable(text) : [text])))),
    changed(spec.changed ?? []),
    group("Why", [
      ["Unlock", spec.unlock && element("code", {}, spec.unlock)],
      ["Justification", spec.justification],
    ]),
    group("Acknowledged", [
      ...(acknowledgements ?? []).map(({ by, at, note, count }) => [by, element("span", {}, note, element("br", {}), time(at), `, ${plural(count, "write", "writes")}`)]),
      ["Not yet", !acknowledged && element("span", {}, "Acknowledge it: ", ...copyable(`apigw-guardian audit ack ${name} --note "..."${target}`))],
    ]),
    group("Who", [
      ["User", element("span", {}, userLabel(spec.user.name))],
      ["Groups", list(spec.user.groups)],
      ["User id", spec.user.uid],
      ["Extra", list(Object.entries(spec.user.extra ?? {}).map(([key, values]) => `${key}: ${values.join(", ")}`))],
    ]),
    group("What", [
      ["Operation", spec.operation],
      ["Resource", spec.resource],
      ["Reason", spec.reason],
    ]),
    group("When", [
      ["First", time(spec.firstTime)],
      ["Last", time(spec.lastTime)],
      ["Count", plural(spec.count, "write", "writes")],
    ]),
    group("Where from", [
      ["Cluster", cluster],
      ["Record", element("code", {}, name)],
      ["Source", sources[spec.source] ?? spec.source],
      ["Caller", callers[spec.caller] ?? spec.caller],
      ["Last request", spec.lastRequestUID && element("code", {}, spec.lastRequestUID)],
      ["Counted by", replicas(spec.counts ?? [])],
    ]),
    element(
      "p",
      { class: "actions" },
      element("button", { type: "button", "data-filter": "user", "data-value": spec.user.name ?? "" }, "Only this user"),
      element("button", { type: "button", "data-filter": "resource", "data-value": spec.resource ?? "" }, "Only this resource"),
      spec.unlock && element("button", { type: "button", "data-filter": "text", "data-value": spec.unlock }, "Only this unlock"),
    ),
  ].filter(Boolean);
}

/** A command, and a button that copies it. */
function copyable(text) {
  const button = element("button", { type: "button", class: "quiet copy", "aria-label": `Copy ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text).then(() => (button.textContent = "Copied"), () => getSelection().selectAllChildren(code));
  });
  const code = element("code", {}, text);
  return [code, button];
}

const sources = { "": "The guard, when it answered", Guard: "The guard, when it answered", Import: "The API server's audit log, imported" };
const callers = { Verified: "An API server, by its client certificate", Unverified: "Unverified: it showed no client certificate of an API server" };

function heading(label, text) {
  return element(
    "header",
    {},
    element("div", {}, label, element("span", { class: "buttons" },
      element("button", { type: "button", class: "quiet", "data-step": -1 }, "Previous"),
      element("button", { type: "button", class: "quiet", "data-step": 1 }, "Next"),
      element("button", { type: "button", class: "quiet close", onclick: () => dialog.close() }, "Close"))),
    element("h2", { id: "details-title" }, text),
  );
}

function changed(paths) {
  return paths.length > 0 &&
    element("section", {}, element("h3", {}, "Changed fields"), element("ul", { class: "paths" }, ...paths.map((path) => element("li", {}, element("code", {}, path)))));
}

/** Fields under a title, without empty ones. */
function group(title, fields) {
  const entries = fields.filter(([, value]) => value);
  return entries.length > 0 &&
    element("section", {}, element("h3", {}, title),
      element("dl", {}, ...entries.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)])));
}

function list(texts) {
  return texts?.length > 0 && element("ul", {}, ...texts.map((text) => element("li", {}, text)));
}

function replicas(counts) {
  return list(counts.map(({ replica, count }) => `${replica}: ${number(count)}`));
}
