// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { element } from "./dom.js";

const numbers = new Intl.NumberFormat();
const dayAndTime = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const inMinutes = new Intl.DateTimeFormat(undefined, dayAndTime);
const inSeconds = new Intl.DateTimeFormat(undefined, { ...dayAndTime, year: "numeric", second: "2-digit", timeZoneName: "short" });
const inDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const inClock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const inZone = new Intl.DateTimeFormat(undefined, { timeZoneName: "shortOffset" });
const inFull = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const inDays = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const number = (n) => numbers.format(n);

/** "1 record", "2 records". */
export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

export const minutes = (date) => inMinutes.format(date);
export const day = (date) => inDays.format(date);
export const timeOfDay = (date) => clock.format(date);

/** The time zone of all times, such as "GMT+8". */
export const zone = () => inZone.formatToParts(new Date()).find(({ type }) => type === "timeZoneName").value;

/** A time element of two lines, the date and the time of day. The title of its column has the zone. */
export function timeLines(iso) {
  const date = new Date(iso);
  return element("time", { datetime: iso, title: inFull.format(date) }, inDate.format(date), element("span", { class: "muted" }, inClock.format(date)));
}

/** A time element to the second, with year and zone, and all of it in its title. */
export function time(iso) {
  const date = new Date(iso);
  return element("time", { datetime: iso, title: inFull.format(date) }, inSeconds.format(date));
}

const outcomes = {
  Denied: "Denied",
  WouldDeny: "Would deny",
  Unguarded: "Unguarded",
  Tampered: "Tampered",
  Drift: "Drift",
  Gap: "Gap",
  Unlocked: "Unlocked",
  Exempted: "Exempted",
  Restored: "Restored",
  Authorized: "Authorized",
  Allowed: "Allowed",
  Rotated: "Rotated",
  Retired: "Retired",
};

/** The outcomes in the order of bars and buttons. */
export const outcomeOrder = Object.keys(outcomes);

export const outcomeLabel = (outcome) => outcomes[outcome] ?? outcome;

/** Whether the write was allowed as it should be. The others are what a reviewer looks for. */
export const isAllowed = (outcome) => ["Unlocked", "Exempted", "Restored", "Authorized", "Allowed", "Rotated", "Retired"].includes(outcome);

/** An outcome as a word, which the colour and a mark repeat. */
export const badge = (outcome) =>
  element("span", { class: "badge", "data-outcome": outcome, "data-allowed": isAllowed(outcome) }, outcomeLabel(outcome));

/** The name of a user; who could not be read has none. */
export const userLabel = (name) => (name === "" ? "not known" : name);

/** A user's name, and where a ServiceAccount lives. */
export function userParts(user) {
  const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user) ?? [];
  return name ? { name, detail: `ServiceAccount in ${namespace}` } : { name: userLabel(user), detail: "" };
}

/** An object's name, its type and its namespace. */
export function objectLabel({ resource, namespace, name }) {
  return { name: name || "not known", detail: [resource, namespace && `in ${namespace}`].filter(Boolean).join(" ") };
}
