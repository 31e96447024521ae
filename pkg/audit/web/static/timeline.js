// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

import { byId, drawing, element } from "./dom.js";
import { day, minutes, number, outcomeLabel, outcomeOrder, plural, timeOfDay } from "./format.js";

const root = byId("timeline");
const readout = byId("timeline-readout");

// The drawing is a grid of one unit per bar, and of this height; CSS stretches it.
const height = 100;
const gap = 0.18;
// A bar is at most this share of the width: few bars are no wall.
const widest = 1 / 24;
const oneDay = 86_400_000;

// The position of the pointer or keyboard, and the start of its selection.
let bars = [];
let at = -1;
let from = -1;
let dragging = false;

/** The timeline. zoom gets the two ends of a selection, in ISO 8601. */
export function setUp(zoom) {
  root.append(
    element("span", { class: "scale" }),
    element("div", { class: "plot", tabindex: 0, role: "slider", "aria-label": "Writes over time. Arrow keys move, with Shift they select, Enter zooms in." }),
    element("div", { class: "ticks", "aria-hidden": true }),
  );
  const plot = root.querySelector(".plot");
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    return clamp(Math.floor(((event.clientX - box.left) / box.width) * bars.length));
  };
  plot.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && bars.length > 0) {
      plot.setPointerCapture(event.pointerId);
      dragging = true;
      move(point(event), false);
    }
  });
  plot.addEventListener("pointermove", (event) => move(point(event), dragging));
  plot.addEventListener("pointerup", () => {
    if (dragging) {
      dragging = false;
      apply(zoom);
    }
  });
  plot.addEventListener("pointercancel", rest);
  plot.addEventListener("pointerleave", () => dragging || rest());
  plot.addEventListener("focus", () => at < 0 && plot.matches(":focus-visible") && move(bars.length - 1, false));
  plot.addEventListener("blur", rest);
  plot.addEventListener("keydown", (event) => onKey(event, zoom));
}

function onKey(event, zoom) {
  const targets = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 };
  if (event.key in targets) {
    move(clamp(targets[event.key]), event.shiftKey);
  } else if (event.key === "Enter" && at >= 0) {
    apply(zoom);
  } else if (event.key === "Escape") {
    rest();
  } else {
    return;
  }
  event.preventDefault();
}

const clamp = (index) => Math.max(0, Math.min(index, bars.length - 1));

function move(to, extend) {
  at = to;
  if (!extend || from < 0) {
    from = to;
  }
  mark();
}

function rest() {
  dragging = false;
  at = -1;
  from = -1;
  mark();
}

function apply(zoom) {
  const [first, last] = [Math.min(at, from), Math.max(at, from)];
  zoom(bars[first].start.toISOString(), bars[last].end.toISOString());
  rest();
}

/** Shows the bars of a view. */
export function show(timeline) {
  bars = timeline.bars.map(({ start, counts }, index) => ({
    start: new Date(start),
    end: new Date(timeline.bars[index + 1]?.start ?? timeline.end),
    counts,
    total: Object.values(counts).reduce((sum, count) => sum + count, 0),
  }));
  const most = Math.max(1, ...bars.map(({ total }) => total));
  const picture = drawing("svg", { viewBox: `0 0 ${bars.length} ${height}`, preserveAspectRatio: "none", "aria-hidden": true });
  picture.append(
    ...[0, height / 2].map((y) => drawing("line", { x1: 0, x2: bars.length, y1: y, y2: y, "vector-effect": "non-scaling-stroke" })),
    drawing("rect", { class: "selection", y: 0, height, width: 0 }),
    ...bars.flatMap((bar, index) => stack(bar, index, most)),
  );
  root.querySelector(".plot").replaceChildren(picture);
  root.querySelector(".scale").textContent = number(most);
  showTicks();
  at = Math.min(at, bars.length - 1);
  from = Math.min(from, bars.length - 1);
  mark();
}

/** The rectangles of one bar, from below. A count above zero is visible. */
function stack(bar, index, most) {
  let top = height;
  const width = Math.min(1 - gap, bars.length * widest);
  return outcomeOrder
    .filter((outcome) => bar.counts[outcome] > 0)
    .map((outcome) => {
      const tall = Math.max(2, (bar.counts[outcome] / most) * height);
      top -= tall;
      return drawing("rect", { "data-outcome": outcome, x: index + (1 - width) / 2, width, y: Math.max(0, top), height: tall });
    });
}

function showTicks() {
  const count = Math.min(bars.length, root.clientWidth < 500 ? 3 : 6);
  const long = bars.at(-1).end - bars[0].start > 2 * oneDay;
  const ticks = Array.from({ length: count }, (_, i) => {
    const index = Math.floor((i * bars.length) / count);
    const tick = element("span", {}, long ? day(bars[index].start) : timeOfDay(bars[index].start));
    tick.style.left = `${(index / bars.length) * 100}%`;
    return tick;
  });
  root.querySelector(".ticks").replaceChildren(...ticks);
}

/** Describes the bar at the position, and shows the selection. */
function mark() {
  if (bars.length === 0) {
    return;
  }
  const [first, last] = at < 0 ? [0, bars.length - 1] : [Math.min(at, from), Math.max(at, from)];
  const text = at < 0 ? spanOf(bars) : describe(bars.slice(first, last + 1));
  readout.textContent = text;
  const plot = root.querySelector(".plot");
  const values = { "aria-valuemin": 0, "aria-valuemax": bars.length - 1, "aria-valuenow": Math.max(at, 0), "aria-valuetext": text };
  for (const [name, value] of Object.entries(values)) {
    plot.setAttribute(name, value);
  }
  const selection = plot.querySelector(".selection");
  selection.setAttribute("x", first);
  selection.setAttribute("width", at < 0 ? 0 : last - first + 1);
}

const spanOf = (some) => `${minutes(some[0].start)} – ${minutes(some.at(-1).end)}`;

function describe(selected) {
  const counts = outcomeOrder
    .map((outcome) => [outcome, selected.reduce((sum, bar) => sum + (bar.counts[outcome] ?? 0), 0)])
    .filter(([, count]) => count > 0)
    .map(([outcome, count]) => `${number(count)} ${outcomeLabel(outcome).toLowerCase()}`);
  return `${spanOf(selected)}: ${counts.join(", ") || plural(0, "write", "writes")}`;
}
