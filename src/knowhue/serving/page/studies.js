// Studies while they run: progress, curves of two metrics, the newest samples, and a link to the report.
import { element, spaced } from "./card.js";

const TICK_MS = 3000;
const WIDTH = 440, HEIGHT = 180, LEFT = 52, BOTTOM = 24;
const STATES = { missing: "–", finished: "done", diverged: "diverged" };

export const formatValue = ({ scale, places, unit }, value) => `${(scale * value).toFixed(places)}${unit}`;

// The ends of an axis, rounded outwards to the last digit shown, and never equal.
export function axisEnds({ scale, places }, values) {
  const steps = scale * 10 ** places, rounded = (value) => Math.round(1e6 * value * steps) / 1e6;
  let low = Math.floor(rounded(Math.min(...values))), high = Math.ceil(rounded(Math.max(...values)));
  if (low === high) [low, high] = low ? [low - 1, high] : [0, 1];
  return [low / steps, high / steps];
}

function drawing(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// The line style of each arm: the colour of its kind, dashed if an earlier arm has the same kind.
function stylesOf(arms) {
  const used = {};
  return arms.map(({ kind }) => {
    used[kind] = (used[kind] ?? -1) + 1;
    return used[kind] ? `${kind} dash${used[kind]}` : kind;
  });
}

function level(chart, y) {
  const below = y < HEIGHT / 2 ? y + 12 : y - 4;
  return [drawing("path", { class: "level", d: `M${LEFT} ${y}H${WIDTH}` }),
    drawing("text", { x: WIDTH, y: below, "text-anchor": "end" }, `${chart.baseline.replace("_", " ")} ${formatValue(chart, chart.level)}`)];
}

const isWide = ({ style }) => style.startsWith("multi");

// Draw a line for each run, from the first epoch of the heads, and the score of the baseline as a dotted line.
export function draw(chart, curves) {
  const [low, high] = axisEnds(chart, [...(chart.level === null ? [] : [chart.level]), ...curves.flatMap(({ values }) => values)]);
  const longest = Math.max(...curves.map(({ values }) => values.length)), bottom = HEIGHT - BOTTOM;
  const across = (epoch) => LEFT + ((WIDTH - LEFT - 8) * epoch) / longest;
  const down = (value) => 8 + (bottom - 8) * (1 - (value - low) / (high - low));
  const first = formatValue(chart, curves[0].values[0]), last = formatValue(chart, curves[0].values.at(-1));
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${chart.title}: from ${first} to ${last}` });
  svg.append(
    drawing("path", { class: "axis", d: `M${LEFT} 8V${bottom}H${WIDTH}` }),
    drawing("text", { x: LEFT - 6, y: 14, "text-anchor": "end" }, formatValue(chart, high)),
    drawing("text", { x: LEFT - 6, y: bottom, "text-anchor": "end" }, formatValue(chart, low)),
    drawing("text", { x: LEFT, y: HEIGHT - 6 }, "0"),
    drawing("text", { x: WIDTH, y: HEIGHT - 6, "text-anchor": "end" }, `epoch ${longest}`),
    ...(chart.level === null ? [] : level(chart, down(chart.level))),
    // wide lines first, so that thin ones on top of them leave both visible
    ...[...curves].sort((one, other) => isWide(other) - isWide(one)).map(({ style, values }) => values.length === 1
      ? drawing("circle", { class: style, cx: across(1), cy: down(values[0]), r: isWide({ style }) ? 4 : 2 })
      : drawing("path", { class: style, d: `M${values.map((value, place) => `${across(place + 1)} ${down(value)}`).join("L")}` })),
  );
  return element("figure", {}, element("figcaption", {}, chart.title), svg);
}

function charts({ arms, charts: given }) {
  const styles = stylesOf(arms);
  const drawn = given.flatMap((chart) => {
    const curves = arms.flatMap(({ name }, place) => chart.curves[name].map((values) => ({ style: styles[place], values })));
    return curves.length ? [draw(chart, curves)] : [];
  });
  if (!drawn.length) return [];
  const keys = arms.map(({ name, kind }, place) => {
    const line = drawing("svg", { viewBox: "0 0 28 8", "aria-hidden": true, class: kind });
    line.append(drawing("path", { class: styles[place], d: "M0 4H28" }));
    return element("li", {}, line, name);
  });
  return [element("div", { class: "charts" }, ...drawn), element("ul", { class: "keys", "aria-label": "Lines" }, ...keys)];
}

function table({ seeds, arms }) {
  const cell = ({ state, epochs, of }) => {
    const made = element("td", { class: state }, STATES[state] ?? `${epochs}/${of}`);
    made.style.setProperty("--p", state in STATES ? 1 : epochs / Math.max(of, 1));
    return made;
  };
  const head = element("tr", {}, ...["Seed", ...seeds].map((each) => element("th", { scope: "col" }, each)));
  const rows = arms.map(({ name, kind, cells }) =>
    element("tr", {}, element("th", { scope: "row", class: kind }, name), ...cells.map(cell)));
  const made = element("table", { class: "cells" }, element("thead", {}, head), element("tbody", {}, ...rows));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs by arm and seed" }, made);
}

function samples({ arms, samples: versions, classes }, place) {
  if (Object.keys(versions).length < 3) return [];
  const names = classes.map(spaced);
  const rows = Object.entries(versions).map(([name, version]) => {
    const label = name === "gray" ? "given" : name, kind = arms.find((arm) => arm.name === name)?.kind ?? "";
    const strip = element("img", { src: `page/studies/${place}/${name}.png?v=${version}`, alt: `Sample images, ${label}: ${names.join(", ")}` });
    return element("tr", {}, element("th", { scope: "row", class: kind }, label), element("td", {}, strip));
  });
  const below = element("div", { class: "names" });
  names.forEach((name, place) => { // neighbours of the same class share one label
    if (place && name === names[place - 1]) below.lastChild.style.flexGrow = Number(below.lastChild.style.flexGrow) + 1;
    else below.append(Object.assign(element("span", {}, name), { style: "flex-grow: 1" }));
  });
  rows.push(element("tr", {}, element("th", { scope: "row" }, "class"), element("td", {}, below)));
  return [element("table", { class: "samples" }, element("caption", {}, "Newest samples"), element("tbody", {}, ...rows))];
}

function section(study, place) {
  const title = element("h2", {}, study.name);
  if (study.problem) return element("section", { class: "study" }, title, element("p", { class: "note" }, study.problem));
  const done = element("p", { class: "note" }, `${study.ended} of ${study.runs} runs done`);
  const report = study.has_report
    ? [element("a", { class: "download", href: `page/studies/${place}/report.html`, target: "_blank" }, "Open the report")] : [];
  return element("section", { class: "study" }, element("header", {}, title, done, ...report), table(study), ...charts(study), ...samples(study, place));
}

// Show studies in an element and refresh them every three seconds while it is visible; returns a function that refreshes now.
export function followStudies(root) {
  let shown = "";
  const refresh = async () => {
    if (!root.checkVisibility() || document.hidden) return;
    const text = await (await fetch("page/studies.json")).text();
    if (text === shown) return; // keeps the reader's scroll position and focus
    shown = text;
    const studies = JSON.parse(text).map(section);
    const none = element("p", { class: "empty" }, element("b", {}, "No study is shown."), " Start the server with ", element("code", {}, "--study DIR"), " to follow one.");
    root.replaceChildren(...(studies.length ? studies : [none]));
  };
  const quietly = () => refresh().catch(() => {}); // the server may be restarting
  setInterval(quietly, TICK_MS);
  return quietly;
}
