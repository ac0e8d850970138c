"use strict";

// Asks for status.json every second and draws it.  Nothing that comes from there is ever markup:
// text goes into text nodes, numbers into numbers.

const EVERY = 1000;     // milliseconds between two looks
const KEPT = 300;       // looks that are drawn at most: five minutes
const LEAST = 60;       // the width of a chart that has just begun, in looks
const WINDOW = 10;      // looks over which rates and quantiles are taken
const CLASSES = [
  ["2xx", "good"], ["3xx", "calm"], ["4xx", "warn"], ["5xx", "bad"], ["1xx", "grey"], ["none", "grey"],
];
const COLOURS = ["one", "two", "three", "good", "calm", "warn", "bad", "grey"];

const looks = [];       // {at, status, rates, p50, p95, p99}, the newest last
const $ = (id) => document.getElementById(id);

function element(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// --- Words for numbers ---------------------------------------------------------------------------

const unknown = (value) => value === null || value === undefined;
const count = (value) => (unknown(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: 0 }));

function rate(value) {
  if (unknown(value)) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

function duration(seconds) {
  if (unknown(seconds)) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

function age(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  for (const [size, unit] of parts) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return "0 s";
}

function bytes(value) {
  if (unknown(value)) return "–";
  return value < 1 << 30 ? `${(value / (1 << 20)).toFixed(1)} MiB` : `${(value / (1 << 30)).toFixed(2)} GiB`;
}

const percent = (value) => (unknown(value) ? "–" : `${(value * 100).toFixed(0)} %`);
const moment = (at) => element("time", { datetime: new Date(at * 1000).toISOString() }, new Date(at * 1000).toLocaleString());

// --- From two looks ------------------------------------------------------------------------------

const finished = (status, code) => status.counters[code === "none" ? "unanswered" : `status_${code}`];

function quantile(histogram, fraction) {
  const total = histogram.reduce((sum, each) => sum + each, 0);
  if (total === 0) return null;
  let below = 0;
  for (let bucket = 0; bucket < histogram.length; bucket++) {
    const here = histogram[bucket];
    if (here && below + here >= fraction * total) {
      const lower = bucket === 0 ? 0 : 2 ** (bucket - 1);
      const units = lower + ((2 ** bucket - lower) * (fraction * total - below)) / here;
      return (units * 1024) / 1e9;
    }
    below += here;
  }
  return null;
}

function remember(status, at) {
  const look = { at, status, rates: null };
  const before = looks[Math.max(0, looks.length - WINDOW)];
  const last = looks[looks.length - 1];
  // Another server answers here now, or its counts began anew: so do we.
  if (last && (last.status.started !== status.started || last.status.requests > status.requests)) looks.length = 0;
  else if (before) {
    const seconds = (at - before.at) / 1000;
    look.rates = {};
    for (const [code] of CLASSES) look.rates[code] = (finished(status, code) - finished(before.status, code)) / seconds;
    const recent = status.histogram.map((each, index) => each - before.status.histogram[index]);
    for (const [name, fraction] of [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]]) look[name] = quantile(recent, fraction);
  }
  looks.push(look);
  if (looks.length > KEPT) looks.shift();
  return look;
}

// --- Charts --------------------------------------------------------------------------------------

const HEIGHT = 100;
const width = () => Math.max(LEAST, looks.length) - 1;

class Chart {
  // `series(look)` answers [[name, colour, value], …]; null values leave a gap.
  constructor(title, unit, series, { stacked = false, least = 1 } = {}) {
    Object.assign(this, { title, unit, series, stacked, least, hovered: null });
    this.svg = drawn("svg", { preserveAspectRatio: "none", role: "img" });
    this.top = element("small");
    this.legend = element("ul", { class: "legend" });
    this.figure = element("figure", {}, element("figcaption", {}, title, this.top), this.svg, this.legend);
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      const index = Math.round(((event.clientX - box.left) / box.width) * width()) - (width() + 1 - looks.length);
      this.hovered = looks[index] || null;
      this.draw();
    });
    this.svg.addEventListener("pointerleave", () => { this.hovered = null; this.draw(); });
  }

  draw() {
    const columns = looks.map((look) => new Map(this.series(look).map(([name, colour, value]) => [name, { colour, value }])));
    const names = [...new Set(columns.flatMap((column) => [...column.keys()]))];
    const base = columns.map(() => 0);
    const lines = names.map((name) => ({
      name,
      colour: columns.findLast((column) => column.has(name)).get(name).colour,
      points: columns.map((column, index) => {
        const value = column.get(name)?.value;
        if (unknown(value)) return null;
        return this.stacked ? [base[index], (base[index] += value)] : [0, value];
      }),
    }));
    const highest = Math.max(this.least, ...lines.flatMap((line) => line.points.map((point) => (point ? point[1] : 0))));
    const x = (index) => index + width() + 1 - looks.length;
    this.svg.setAttribute("viewBox", `0 0 ${width()} ${HEIGHT}`);
    const y = (value) => HEIGHT - 2 - ((HEIGHT - 6) * value) / highest;
    this.svg.replaceChildren(...[0.5, 1].map((part) => drawn("line", { x1: 0, x2: width(), y1: y(highest * part), y2: y(highest * part) })));
    // The first on top: where another adds nothing to it, it is the one to be seen.
    for (const line of lines.toReversed()) {
      for (const run of runs(line.points)) {
        const over = run.map(([index, [, value]]) => `${x(index)},${y(value).toFixed(2)}`).join("L");
        const under = run.toReversed().map(([index, [value]]) => `${x(index)},${y(value).toFixed(2)}`).join("L");
        const path = this.stacked ? `M${over}L${under}Z` : `M${over}`;
        this.svg.append(drawn("path", { d: path, class: this.stacked ? `filled ${line.colour}` : line.colour }));
      }
    }
    const shown = this.hovered && looks.includes(this.hovered) ? this.hovered : looks[looks.length - 1];
    if (shown === this.hovered) {
      const at = x(looks.indexOf(shown));
      this.svg.append(drawn("line", { x1: at, x2: at, y1: 0, y2: HEIGHT, class: "here" }));
    }
    this.top.textContent = shown === this.hovered ? new Date(shown.at).toLocaleTimeString() : `up to ${this.unit(highest)}`;
    const entries = this.series(shown).map(([name, colour, value]) => [name, colour, this.unit(value)]);
    this.legend.replaceChildren(...entries.map(([name, colour, text]) => element("li", { class: colour }, element("span", {}, `${name} ${text}`))));
    this.svg.setAttribute("aria-label", `${this.title}: ${entries.map(([name, , text]) => `${name} ${text}`).join(", ")}`);
  }
}

function* runs(points) {
  // Those without a gap between them, each as [index, point].
  let run = [];
  for (const [index, point] of points.entries()) {
    if (point) run.push([index, point]);
    else if (run.length) { yield run; run = []; }
  }
  if (run.length) yield run;
}

const charts = [
  new Chart("Requests per second", rate,
    (look) => CLASSES.filter(([code]) => finished(look.status, code)).map(([code, colour]) => [code, colour, look.rates?.[code]]),
    { stacked: true }),
  new Chart("Duration", duration,
    (look) => [["p50", "one", look.p50], ["p95", "two", look.p95], ["p99", "three", look.p99]], { least: 0.001 }),
  new Chart("Workers", count,
    (look) => [["busy", "three", look.status.busy], ["ready", "one", look.status.ready], ["wanted", "grey", look.status.wanted]]),
  new Chart("Connections waiting", count,
    (look) => look.status.listeners.map((each, index) => [each.address, COLOURS[index % COLOURS.length], each.waiting])),
  new Chart("Private memory", bytes,
    (look) => look.status.workers.map((each) => [`worker ${each.serial}`, COLOURS[each.serial % COLOURS.length], each.memory]),
    { stacked: true, least: 1 << 20 }),
];
$("charts").append(...charts.map((chart) => chart.figure));

// --- The rest ------------------------------------------------------------------------------------

const WORKERS = [
  // heading, class, text
  ["", "text", (w) => `${w.serial}`],
  ["pid", "spare", (w) => `${w.pid}`],
  ["kind", "text spare", (w) => w.kind],
  ["state", "text", (w) => (w.recycle ? `${w.state} (${w.recycle})` : w.state)],
  ["gen.", "spare", (w) => `${w.generation}`],
  ["age", "", (w) => age(w.age)],
  ["requests", "", (w) => count(w.requests)],
  ["per s", "", (w) => rate(w.rate)],
  ["p50", "spare", (w) => duration(w.p50)],
  ["p95", "", (w) => duration(w.p95)],
  ["errors", "spare", (w) => count(w.errors)],
  ["memory", "", (w) => bytes(w.memory)],
  ["CPU", "", (w) => percent(w.cpu)],
  ["connections", "spare", (w) => count(w.connections)],
  ["in flight", "", (w) => count(w.in_flight)],
  ["serving", "text request", (w) => (w.current.length ? `${duration(w.current[0].seconds)} ${w.current[0].method} ${w.current[0].target}` : "")],
];
const LISTENERS = [
  ["address", "text", (l) => l.address],
  ["waiting", "", (l) => count(l.waiting)],
  ["limit", "", (l) => count(l.limit)],
];

function fill(table, columns, rows) {
  const cells = (name, text) => columns.map((column) => element(name, { class: column[1] }, text(column)));
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...cells("th", (column) => column[0]))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", (column) => column[2](row))))),
  );
}

function tile(name, value, colour = "") {
  return element("div", { class: "tile" }, element("b", { class: colour }, value), element("span", {}, name));
}

function show(look) {
  const { status } = look;
  const rates = look.rates || {};
  const sum = (values) => values.reduce((total, each) => total + (each || 0), 0);
  document.title = `${status.app} – forkmaster`;
  $("app").textContent = status.app;
  $("state").textContent = status.state;
  $("state").className = `badge ${{ serving: "good", reloading: "warn", starting: "warn" }[status.state] || "bad"}`;
  $("about").textContent = [
    `forkmaster ${status.version}`, `Python ${status.python}`, `pid ${status.pid}`, `up ${age(status.uptime)}`,
    `generation ${status.generation}`, status.file, told(status.outcome),
  ].filter(Boolean).join(" · ");
  $("tiles").replaceChildren(
    tile("requests per second", look.rates ? rate(sum(Object.values(rates))) : "–"),
    tile("p95", duration(look.p95)),
    tile("5xx per second", rate(rates["5xx"]), rates["5xx"] > 0 ? "bad" : ""),
    tile("busy, of ready", `${status.busy} / ${status.ready}`, status.ready < status.wanted ? "warn" : ""),
    tile("waiting", count(sum(status.listeners.map((each) => each.waiting)))),
    tile("private memory", bytes(sum(status.workers.map((each) => each.memory)))),
  );
  fill($("workers"), WORKERS, status.workers);
  fill($("listeners"), LISTENERS, status.listeners);
  list($("incidents"), status.incidents || [], incident, "none");
  list($("deaths"), status.deaths, (death) => element("li", {}, moment(death.at), ` worker ${death.serial} (pid ${death.pid}): ${death.text}`), "none");
  for (const chart of charts) chart.draw();
}

function told(outcome) {
  if (!outcome) return "";
  const words = { committed: "last reload went through", refused: "last reload refused", rolled_back: "last reload rolled back" };
  return `${words[outcome.result]}${outcome.reason ? `: ${outcome.reason}` : ""}`;
}

function incident(each) {
  const summary = element("summary", {}, moment(Date.parse(each.time) / 1000), ` ${each.summary}`);
  const recent = (each.recent || []).map((one) => `  ${one.request} ${one.status} in ${duration(one.seconds)}`);
  const text = [...(each.stacks || []), ...(recent.length ? ["", "Before that:", ...recent] : [])].join("\n");
  return element("li", {}, element("details", {}, summary, element("pre", {}, text)));
}

const listed = new Map();   // what each list shows, so that one that somebody reads is left alone

function list(place, items, make, nothing) {
  const key = JSON.stringify(items);
  if (listed.get(place) === key) return;
  listed.set(place, key);
  place.replaceChildren(...(items.length ? items.map(make) : [element("li", { class: "grey" }, nothing)]));
}

function complain(text) {
  $("trouble").hidden = !text;
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
}

async function look() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const status = await answer.json();
    show(remember(status, Date.now()));
    complain(status.overdue ? `The master has been silent for ${age(status.overdue)} longer than it said.` : "");
  } catch (failure) {
    complain(`The monitor does not answer: ${failure.message}. What is shown is old.`);
  }
  setTimeout(look, EVERY);
}

look();
