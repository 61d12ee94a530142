// The page. Data from the server is always inserted as text, never as markup.

const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MARKS = {
  finished: "M-3 .2-.8 2.4 3-2",
  failed: "M-2.3-2.3 2.3 2.3M2.3-2.3-2.3 2.3",
  cancelled: "M-3 0H3",
};
const ACTIONS = {
  run: {name: "Run now", question: "Run it now?", text: "It becomes due at once."},
  postpone: {name: "Postpone", question: "Postpone it?", text: "It becomes due later than planned."},
  pause: {name: "Pause", question: "Pause it?", text: "It keeps its ID and does not start until it is resumed."},
  resume: {name: "Resume", question: "Resume it?", text: "It starts when it is due."},
  retry: {name: "Retry", question: "Retry it?", text: "It runs again, when it is due or now."},
  cancel: {name: "Cancel", question: "Cancel it?", text: "A pending task never runs; a running one is interrupted.", danger: true},
};

const state = {
  window: 600,
  page: 0,
  descending: false,
  skew: 0, // how far the server's clock is ahead of this one, in milliseconds
  actions: false,
  timeline: null,
  chart: null,
};

// Elements

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const label = id => id.trim() === "" ? "(empty)" : id;

// Times and numbers

const numberFormat = new Intl.NumberFormat();
const timeFormat = new Intl.DateTimeFormat(undefined, {timeStyle: "medium"});
const shortFormat = new Intl.DateTimeFormat(undefined, {timeStyle: "short"});
const dateFormat = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});

const now = () => Date.now() + state.skew;

function time(moment) {
  const sameDay = new Date(moment).toDateString() === new Date(now()).toDateString();
  return (sameDay ? timeFormat : dateFormat).format(moment);
}

function duration(seconds) {
  if (seconds < 0.0995) return `${Math.max(0, seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${numberFormat.format(Math.round(seconds / 86400))} days`;
}

function relative(moment) {
  const seconds = Math.round((moment - now()) / 1000);
  if (seconds === 0) return "now";
  return seconds > 0 ? `in ${duration(seconds)}` : `${duration(-seconds)} ago`;
}

function timeElement(moment) {
  return make("time", {datetime: new Date(moment).toISOString()}, time(moment));
}

function statusElement(status) {
  return make("span", {class: `status ${status}`}, status === "unknown" ? "without handler" : status);
}

// Talking to the server

async function get(path) {
  const response = await fetch(path, {headers: {accept: "application/json"}});
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

// Calls a function now and after later requests, but limits it to a tenth of the total time.
function throttled(work, report) {
  let timer = 0;
  let busy = false;
  let again = false;
  let ready = 0;
  async function run() {
    timer = 0;
    if (busy) { again = true; return; }
    busy = true;
    again = false;
    const start = performance.now();
    try {
      await work();
    } catch (error) {
      report?.(error);
    }
    ready = performance.now() + Math.max(900, 9 * (performance.now() - start));
    busy = false;
    if (again) request();
  }
  function request(urgent = false) {
    if (urgent) {
      clearTimeout(timer);
      run();
    } else if (busy) {
      again = true;
    } else if (!timer) {
      timer = setTimeout(run, Math.max(0, ready - performance.now()));
    }
  }
  return request;
}

const refreshOverview = throttled(async () => {
  const data = await get(`api/overview?window=${state.window}`);
  state.timeline = data.timeline;
  state.chart = data.chart;
  drawTimeline();
  drawChart();
});

const refreshTable = throttled(async () => {
  const query = new URLSearchParams({
    search: $("search").value,
    status: $("status").value,
    scheduler: $("scheduler").value,
    order: state.descending ? "descending" : "ascending",
    page: state.page,
  });
  const text = query.toString();
  const data = await get(`api/tasks?${text}`);
  showTable(data);
});

const refreshDetail = throttled(async () => {
  const key = openKey();
  if (key) {
    const data = await get(`api/tasks/${key}`);
    if (openKey() === key) showDetail(key, data);
  }
}, error => {
  if (openKey()) {
    $("detail").shown = null; // it is drawn again, even if it has not changed
    setText($("detail-heading"), "Task");
    $("detail-body").replaceChildren(make("p", {}, error.message || "The task no longer exists."));
    showDialog($("detail"));
  }
});

function refresh(urgent = false) {
  refreshTable(urgent);
  refreshOverview(urgent);
  refreshDetail(urgent);
}

let source = null;

// A page that is not seen follows nothing: a browser has only six connections to a server for all of its tabs.
function follow() {
  if (source || document.hidden) return;
  source = new EventSource("api/events");
  source.onopen = () => connection("live", "Live");
  source.onmessage = event => {
    showNumbers(JSON.parse(event.data));
    refresh();
  };
  source.onerror = () => {
    connection("lost", "Connection lost, reconnecting …");
    if (source.readyState === EventSource.CLOSED) { // the server has answered with an error
      source = null;
      setTimeout(follow, 3000);
    }
  };
}

function connection(name, text) {
  $("connection").dataset.state = name;
  setText($("connection"), text);
}

// Numbers

function showNumbers(data) {
  state.skew = data.now - Date.now();
  state.actions = data.actions;
  for (const name of ["pending", "running", "failed", "finished"]) setText($(name), numberFormat.format(data[name]));
  $("failed").toggleAttribute("data-some", data.failed > 0);
  for (const name of ["parked", "unknown"]) {
    const known = data[name] !== null;
    $(name).parentElement.hidden = !known;
    $("status").querySelector(`option[value=${name}]`).hidden = !known;
    if (known) setText($(name), numberFormat.format(data[name]));
    $(name).toggleAttribute("data-some", data[name] > 0);
  }
  setText($("lateness"), data.lateness === null ? "–" : duration(data.lateness));
  const role = data.roles.some(role => role !== "owner") ? `, ${data.roles.join(" and ")}` : "";
  connection("live", data.state === "running" ? `Live${role}` : `Live, the scheduler is ${data.state}`);
  const select = $("scheduler");
  const names = [...select.options].slice(1).map(option => option.value);
  if (names.join("\0") !== data.schedulers.join("\0")) {
    const chosen = select.value;
    const known = chosen && !data.schedulers.includes(chosen) ? [chosen] : [];
    select.replaceChildren(
      make("option", {value: ""}, "All"),
      ...[...data.schedulers, ...known].map(name => make("option", {value: name}, name)),
    );
    select.value = chosen;
  }
}

// The timeline

function drawTimeline() {
  const data = state.timeline;
  if (!data) return;
  const panel = $("timeline");
  if (!data.rows.length) {
    panel.replaceChildren(make("p", {class: "nothing"}, "No task ran, is running or is due in this period."));
    return;
  }
  const width = Math.max(340, panel.clientWidth);
  const left = Math.min(210, Math.round(width * 0.3));
  const row = 28;
  const top = 24;
  const height = top + row * data.rows.length + 26;
  const half = (data.end - data.start) / 2;
  const present = now();
  const start = present - half;
  const right = width - 14;
  const x = moment => left + (Math.min(Math.max(moment, start), start + 2 * half) - start) / (2 * half) * (right - left);
  const parts = [];
  for (let index = 1; index < data.rows.length; index += 2) {
    parts.push(draw("rect", {class: "stripe", x: 0, y: top + row * index, width, height: row}));
  }
  const bottom = top + row * data.rows.length;
  for (const moment of ticks(start, start + 2 * half, width < 600 ? 3 : 7)) {
    parts.push(draw("line", {class: "grid", x1: x(moment), y1: top, x2: x(moment), y2: bottom + 4}));
    parts.push(draw("text", {class: "tick", x: x(moment), y: bottom + 17, "text-anchor": "middle"}, shortFormat.format(moment)));
  }
  data.rows.forEach((task, index) => {
    const y = top + row * index + row / 2;
    const text = draw("text", {x: 12, y: y + 4}, clip(label(task.id), left - 24));
    const title = draw("title", {}, `${task.id} (${task.scheduler})`);
    parts.push(draw("a", {href: `#task/${task.key}`}, text, title));
    for (const bar of [...task.bars].reverse()) {
      const from = x(bar.start);
      const to = x(bar.end ?? present);
      parts.push(draw("rect", {
        class: bar.end === null ? "running" : "done", x: from, y: y - 6, width: Math.max(2, to - from), height: 12, rx: 4,
      }, draw("title", {}, `${bar.status}, ${duration(((bar.end ?? present) - bar.start) / 1000)}, started ${time(bar.start)}`)));
      if (bar.end !== null) parts.push(...mark(bar.status, to, y));
    }
    if (task.due !== null) {
      parts.push(draw("line", {class: "wait", x1: x(present), y1: y, x2: x(Math.max(task.due, present)), y2: y}));
      parts.push(draw("circle", {class: "due", cx: x(task.due), cy: y, r: 5}, draw("title", {}, `due ${time(task.due)}, ${relative(task.due)}`)));
    }
  });
  parts.push(draw("line", {class: "now", x1: x(present), y1: top - 6, x2: x(present), y2: bottom}));
  parts.push(draw("text", {class: "now-text", x: x(present), y: top - 10, "text-anchor": "middle"}, `now, ${timeFormat.format(present)}`));
  replaceDrawing(panel, draw("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Timeline of the tasks"}, ...parts));
}

function mark(status, x, y) {
  return [
    draw("circle", {class: status, cx: x, cy: y, r: 6}),
    draw("path", {class: "mark", d: MARKS[status], transform: `translate(${x} ${y})`}),
  ];
}

// Replaces a drawing. What is the same stays in place, so that a click or a tooltip that has begun on it is not lost.
function replaceDrawing(panel, drawing) {
  const focused = panel.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const old = panel.querySelector("svg");
  if (old) update(old, drawing);
  else panel.replaceChildren(drawing);
  if (focused && !panel.contains(document.activeElement)) [...panel.querySelectorAll("a")].find(link => link.getAttribute("href") === focused)?.focus();
}

function update(old, wanted) {
  if (old.isEqualNode(wanted)) return;
  const another = old.localName === "a" && old.getAttribute("href") !== wanted.getAttribute("href");
  if (old.localName !== wanted.localName || !old.localName || another) {
    old.replaceWith(wanted);
    return;
  }
  for (const name of old.getAttributeNames()) if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  for (const {name, value} of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  while (old.childNodes.length > wanted.childNodes.length) old.lastChild.remove();
  [...wanted.childNodes].forEach((part, index) => {
    if (old.childNodes[index]) update(old.childNodes[index], part);
    else old.append(part);
  });
}

function clip(text, width) {
  const most = Math.max(4, Math.floor(width / 6.6));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function ticks(start, end, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720].map(minutes => minutes * 60000);
  const step = steps.find(step => (end - start) / step <= count) ?? 86400000;
  const offset = new Date(start).getTimezoneOffset() * 60000;
  const found = [];
  for (let moment = Math.ceil((start - offset) / step) * step + offset; moment <= end; moment += step) found.push(moment);
  return found;
}

// The chart

function drawChart() {
  if (!state.chart) return;
  const panel = $("chart");
  const minutes = state.chart;
  if (!minutes.length) {
    panel.replaceChildren(make("p", {class: "nothing"}, "Nothing started in the last hour."));
    return;
  }
  const width = Math.max(340, panel.clientWidth);
  const height = 150;
  const [left, right, top, bottom] = [44, width - 52, 14, height - 26];
  const end = Math.floor(now() / 60000) * 60000 + 60000;
  const start = end - 3600000;
  const step = (right - left) / 60;
  const most = Math.max(1, ...minutes.map(minute => Math.max(minute.started, minute.failed)));
  const latest = Math.max(0.001, ...minutes.map(minute => minute.lateness));
  const x = moment => left + (moment - start) / 3600000 * (right - left);
  const y = value => bottom - value / most * (bottom - top);
  const late = value => bottom - value / latest * (bottom - top);
  const parts = [
    draw("line", {class: "grid", x1: left, y1: bottom, x2: right, y2: bottom}),
    draw("line", {class: "grid", x1: left, y1: top, x2: right, y2: top}),
    draw("text", {class: "tick", x: left - 6, y: top + 4, "text-anchor": "end"}, numberFormat.format(most)),
    draw("text", {class: "tick", x: left - 6, y: bottom + 4, "text-anchor": "end"}, "0"),
    draw("text", {class: "lateness-text", x: right + 6, y: top + 4}, duration(latest)),
    draw("text", {class: "lateness-text", x: right + 6, y: bottom + 4}, "0 s"),
  ];
  for (const moment of ticks(start, end, width < 600 ? 4 : 6)) {
    parts.push(draw("text", {class: "tick", x: x(moment), y: bottom + 17, "text-anchor": "middle"}, shortFormat.format(moment)));
  }
  const points = [];
  for (const minute of minutes) {
    if (minute.start < start) continue;
    const place = x(minute.start);
    const title = `${shortFormat.format(minute.start)}: ${minute.started} started, ${minute.failed} failed, latest ${duration(minute.lateness)}`;
    parts.push(draw("rect", {class: "starts", x: place + 0.5, y: y(minute.started), width: Math.max(1, step - 1), height: bottom - y(minute.started)}, draw("title", {}, title)));
    if (minute.failed) {
      parts.push(draw("rect", {class: "failed", x: place + 0.5, y: y(minute.failed), width: Math.max(1, step - 1), height: bottom - y(minute.failed)}, draw("title", {}, title)));
    }
    points.push([place + step / 2, late(minute.lateness)]);
  }
  if (points.length > 1) parts.push(draw("path", {class: "lateness", d: `M${points.map(point => point.join(" ")).join("L")}`}));
  for (const [cx, cy] of points) parts.push(draw("circle", {class: "lateness-point", cx, cy, r: 2}));
  const total = minutes.reduce((sum, minute) => sum + minute.started, 0);
  const failed = minutes.reduce((sum, minute) => sum + minute.failed, 0);
  const label = `In the last hour ${total} runs started and ${failed} failed; the latest start was ${duration(latest)} late`;
  replaceDrawing(panel, draw("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label}, ...parts));
}

// The table

function showTable(data) {
  const total = numberFormat.format(data.total);
  setText($("total"), data.total === 1 ? "1 task" : `${total} tasks`);
  const body = $("rows");
  const focused = document.activeElement;
  const rows = new Map([...body.rows].map(row => [row.dataset.row, row]));
  const wanted = data.rows.map((task, index) => {
    const name = `${task.key} ${task.number ?? ""} ${task.number === undefined ? "" : index}`;
    const row = rows.get(name) ?? makeRow(name);
    fillRow(row, task);
    return row;
  });
  wanted.forEach((row, index) => {
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  while (body.rows.length > wanted.length) body.lastElementChild.remove();
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus();
  $("empty").hidden = data.total > 0;
  setText($("empty"), $("search").value ? "No task has a matching ID." : "No tasks.");
  $("pages").hidden = data.pages < 2;
  setText($("page"), `Page ${data.page + 1} of ${numberFormat.format(data.pages)}`);
  $("previous").disabled = data.page === 0;
  $("next").disabled = data.page + 1 >= data.pages;
  if (data.page > 0 && data.page >= data.pages) {
    state.page = Math.max(0, data.pages - 1);
    refreshTable(true);
  }
}

function makeRow(name) {
  const row = make("tr", {"data-row": name});
  row.append(
    make("td", {class: "id"}, make("a"), make("small")),
    make("td", {class: "wide"}),
    make("td"),
    make("td", {class: "due"}),
    make("td", {class: "wide number"}),
  );
  return row;
}

function fillRow(row, task) {
  const text = JSON.stringify(task);
  if (row.shown !== text) {
    row.shown = text;
    const [id, scheduler, status, due, runs] = row.cells;
    const link = id.firstElementChild;
    link.setAttribute("href", `#task/${task.key}`);
    setText(link, label(task.id));
    setText(id.lastElementChild, task.scheduler);
    setText(scheduler, task.scheduler);
    status.replaceChildren(statusElement(task.status));
    if (task.failure) status.append(make("span", {class: "failure"}, task.failure.slice(0, 200)));
    due.replaceChildren(...(task.due === null ? ["–"] : [timeElement(task.due), make("span")]));
    row.due = task.due;
    setText(runs, numberFormat.format(task.runs));
  }
  tickRow(row);
}

function tickRow(row) {
  const span = row.cells[3].querySelector("span");
  if (span) setText(span, relative(row.due));
}

// One task

const openKey = () => location.hash.startsWith("#task/") ? location.hash.slice(6) : "";

function showDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

function route() {
  if (openKey()) {
    refreshDetail(true);
  } else if ($("detail").open) {
    $("detail").close();
  }
}

// The address first, because a refresh in the meantime would open the dialog again.
function closeDetail() {
  leaveTask();
  $("detail").close();
}

function leaveTask() {
  if (openKey()) history.pushState(null, "", location.pathname + location.search);
}

function showDetail(key, data) {
  setText($("detail-heading"), label(data.id));
  const text = JSON.stringify(data);
  if ($("detail").shown !== key + text) {
    const body = $("detail-body");
    const again = $("detail").open && $("detail").shown?.startsWith(`${key}{`);
    const opened = again ? [...body.querySelectorAll("details[open]")].map(part => part.dataset.run) : [];
    const focused = again && body.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    $("detail").shown = key + text;
    const parts = describe(key, data);
    const failures = parts.filter(part => part.localName === "details");
    for (const part of failures) part.open = again ? opened.includes(part.dataset.run) : part === failures[0];
    if (!again) body.replaceChildren(); // its buttons are for another task
    replaceChanged(body, parts);
    if (focused && !body.contains(document.activeElement)) ([...body.querySelectorAll("[data-name]")].find(part => part.dataset.name === focused) ?? $("close")).focus();
  }
  showDialog($("detail"));
}

// What has not changed stays in place: a click that has begun on it counts.
function replaceChanged(parent, parts) {
  while (parent.children.length > parts.length) parent.lastElementChild.remove();
  parts.forEach((part, index) => {
    const old = parent.children[index];
    if (!old) parent.append(part);
    else if (!old.isEqualNode(part)) old.replaceWith(part);
  });
}

function describe(key, data) {
  const facts = make("dl", {class: "facts"});
  const fact = (name, ...value) => facts.append(make("dt", {}, name), make("dd", {}, ...value));
  fact("Status", statusElement(data.status));
  fact("Scheduler", data.scheduler);
  if (data.due !== null) fact("Due", timeElement(data.due), ` (${relative(data.due)})`);
  if (data.location) fact("Scheduled at", data.location);
  if (data.problem) fact("Problem", make("span", {class: "failure"}, data.problem));
  const parts = [facts];
  if (data.actions.length) {
    parts.push(make("div", {class: "buttons"}, ...data.actions.map(name => {
      const button = make("button", {type: "button", "data-name": name, class: ACTIONS[name].danger ? "danger" : ""}, ACTIONS[name].name);
      button.addEventListener("click", () => ask(key, data.id, name));
      return button;
    })));
  }
  parts.push(make("h3", {}, data.runs.length ? `Runs (${data.runs.length})` : "No runs are known."));
  if (data.runs.length) {
    const rows = data.runs.map(run => make("tr", {},
      make("td", {class: "number"}, String(run.number)),
      make("td", {}, timeElement(run.started)),
      make("td", {class: "number"}, run.seconds === null ? "–" : duration(run.seconds)),
      make("td", {class: "number wide"}, duration(Math.max(0, run.lateness))),
      make("td", {}, statusElement(run.status)),
    ));
    parts.push(make("table", {},
      make("thead", {}, make("tr", {},
        make("th", {scope: "col", class: "number"}, "Run"), make("th", {scope: "col"}, "Started"), make("th", {scope: "col", class: "number"}, "Took"),
        make("th", {scope: "col", class: "number wide"}, "Late by"), make("th", {scope: "col"}, "Outcome"))),
      make("tbody", {}, ...rows)));
  }
  const failures = data.runs.filter(run => run.failure);
  if (failures.length) {
    parts.push(make("h3", {}, failures.length === 1 ? "Failure" : `Failures (${failures.length})`));
    for (const run of failures) {
      const name = `${run.number} ${run.started}`;
      const summary = make("summary", {"data-name": `failure ${name}`}, `${time(run.started)}: ${run.failure}`);
      parts.push(make("details", {"data-run": name}, summary, make("pre", {tabindex: "0", role: "region", "aria-label": "Traceback"}, run.traceback ?? "")));
    }
  }
  return parts;
}

// Actions

function ask(key, id, name) {
  const action = ACTIONS[name];
  setText($("confirm-heading"), action.question);
  $("confirm-text").replaceChildren(make("bdi", {}, label(id)), `: ${action.text}`); // isolated: its characters may be of either direction
  setText($("confirm-error"), "");
  $("seconds-label").hidden = name !== "postpone";
  const yes = $("confirm-yes");
  setText(yes, action.name);
  yes.className = action.danger ? "danger" : "go";
  yes.disabled = false;
  yes.onclick = async () => {
    yes.disabled = true;
    try {
      const response = await fetch(`api/tasks/${key}/${name}`, {
        method: "POST",
        headers: {"content-type": "application/json", "x-anysched-action": "1"},
        body: JSON.stringify(name === "postpone" ? {seconds: Number($("seconds").value)} : {}),
      });
      if (!response.ok) throw new Error(await response.text());
      $("confirm").close();
      if (name === "cancel") closeDetail();
      refresh(true);
    } catch (error) {
      setText($("confirm-error"), error.message);
      yes.disabled = false;
    }
  };
  showDialog($("confirm"));
  $("confirm-no").focus();
}

// User input

function changeQuery() {
  state.page = 0;
  refreshTable(true);
}

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(changeQuery, 200);
});
$("filters").addEventListener("submit", event => {
  event.preventDefault();
  changeQuery();
});
$("status").addEventListener("change", changeQuery);
$("scheduler").addEventListener("change", changeQuery);
$("order").addEventListener("click", () => {
  state.descending = !state.descending;
  $("due-column").setAttribute("aria-sort", state.descending ? "descending" : "ascending");
  changeQuery();
});
$("previous").addEventListener("click", () => { state.page -= 1; refreshTable(true); });
$("next").addEventListener("click", () => { state.page += 1; refreshTable(true); });
$("windows").addEventListener("change", event => {
  state.window = Number(event.target.value);
  refreshOverview(true);
});
$("close").addEventListener("click", closeDetail);
$("detail").addEventListener("close", leaveTask); // also by Escape
document.addEventListener("keydown", event => {
  const writing = event.target instanceof HTMLInputElement && event.target.type !== "radio";
  if (event.key === "/" && !writing && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    $("search").focus();
  }
});
window.addEventListener("hashchange", route);
window.addEventListener("resize", () => { drawTimeline(); drawChart(); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else {
    follow();
    refresh();
  }
});

setInterval(() => {
  if (document.hidden) return;
  drawTimeline();
  for (const row of $("rows").rows) tickRow(row);
}, 1000);
// Due and past times change by themselves as time passes.
setInterval(() => { if (!document.hidden) { refreshOverview(); refreshTable(); } }, 30000);

refresh(true);
route();
follow();
