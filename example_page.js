"use strict";

// The server knows the tasks and draws them. This script asks how they are doing, and
// puts what is new in its place. Without it the forms work as forms do.

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const wide = matchMedia("(min-width: 60rem)");
const others = new BroadcastChannel("flask-executor-example");  // this visitor's other tabs

class Lost extends Error {}  // no answer from the app: ask again
class Refused extends Error {  // an answer from the app: show it
  constructor(answer) { super(answer.error); this.field = answer.field; }
}

async function ask(path, options = {}) {
  let response, answer;
  try {
    response = await fetch(path, {...options, headers: {Accept: "application/json"}});
    answer = await response.json();
  } catch {
    throw new Lost();
  }
  if (response.ok) return answer;
  // What has no message of ours was said by something between us and the app.
  throw answer?.error && response.status < 500 ? new Refused(answer) : new Lost();
}

// The connection: lost with the first question without an answer, back with an answer.

function showLost(lost) {
  document.body.classList.toggle("lost", lost);
  const text = lost ? "Connection lost, trying again" : "";
  const place = document.getElementById("connection");
  if (place.textContent !== text) place.textContent = text;
}

async function askUntilAnswered(path, options) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 10000)) {
    try {
      const answer = await ask(path, options);
      showLost(false);
      return answer;
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      showLost(true);
    }
    await Promise.race([pause(wait), nudge()]);
  }
}

// Polling: often while something changes, seldom while nothing does, and only for those
// who look.

const nudged = new Set();
const nudge = () => new Promise(resolve => nudged.add(resolve));
function pollNow() {
  for (const resolve of nudged) resolve();
  nudged.clear();
}

async function poll() {
  let wait = 0;
  for (;;) {
    const woken = nudge();  // a nudge while we ask counts, too
    const before = formsAnswered;
    const status = await askUntilAnswered("/status");
    // An answer that a form has overtaken may not know what the form has started.
    const changed = await show(status, before === formsAnswered);
    const busy = document.querySelector(".task:not([data-ended])");
    const [least, most] = busy ? [250, 1000] : [2000, 15000];
    wait = changed ? least : Math.min(Math.max(wait * 1.4, least), most);
    if (document.hidden && !busy) await woken;
    else await Promise.race([pause(document.hidden ? 5000 : wait), woken]);
  }
}

// Tasks.

const lineOf = key => document.querySelector(`.task[data-key="${CSS.escape(key)}"]`);

let formsAnswered = 0;
let showing = Promise.resolve();
function show(status, isLatest) {  // one after another: two answers may come at once
  return showing = showing.catch(() => {}).then(() => showStatus(status, isLatest));
}

async function showStatus({tasks, load}, isLatest) {
  showLoad(load);
  const news = [];
  for (const task of tasks.toReversed()) {  // the newest comes last, and goes on top
    const line = lineOf(task.key);
    if (line && "ended" in line.dataset) continue;  // whatever an older answer says
    if (line?.dataset.state !== task.state) news.push(task);
    if (!line || task.ended) await redraw(task);
    else update(line, task);
  }
  if (isLatest) news.push(...markGone(tasks));
  announce(news);
  return news.length > 0 || tasks.some(task => !task.ended && task.fraction !== null);
}

// Draw the line of a task that is new, or that has ended.
async function redraw(task) {
  const {html} = await askUntilAnswered("/tasks/" + task.key);
  const template = document.createElement("template");
  template.innerHTML = html;
  const line = template.content.querySelector(".task");
  const old = lineOf(task.key);
  if (!old) {
    document.querySelector(`#${task.job} > .tasks`).prepend(line);
  } else {
    const focused = old.contains(document.activeElement);
    old.replaceWith(line);
    if (focused) line.focus();
  }
  fold(document.getElementById(task.job));
}

function update(line, task) {
  const state = line.querySelector(".state");
  if (state.textContent !== task.label) state.textContent = task.label;
  line.className = "task " + task.state;
  line.dataset.state = task.state;
  const share = Math.floor(100 * (task.fraction ?? 0)) + "%";
  line.querySelector(".meter").hidden = task.fraction === null;
  line.querySelector("progress").value = task.fraction ?? 0;
  line.querySelector(".share").textContent = share + (task.message && " · " + task.message);
}

// A task was removed after its time, or others have taken its place.
function markGone(tasks) {
  const known = new Set(tasks.map(task => task.key));
  const lines = [...document.querySelectorAll(".task:not([data-state=gone])")];
  return lines.filter(line => !known.has(line.dataset.key)).map(line => {
    const focused = line.contains(document.activeElement);
    line.className = "task gone";
    line.dataset.state = "gone";
    line.dataset.ended = "";
    line.querySelector(".state").textContent = "Gone";
    line.querySelectorAll(".cancel, .meter, .result").forEach(part => part.remove());
    const result = document.createElement("p");
    result.className = "result";
    result.textContent = "The server no longer knows this task.";
    line.append(result);
    if (focused) line.focus();
    return {title: line.querySelector(".title").textContent, label: "Gone"};
  });
}

// The newest result is open where there is room; what is old is folded.
function fold(card) {
  const lines = [...card.querySelectorAll(".task")];
  const [recent, earlier] = card.querySelectorAll(".tasks");
  lines.slice(0, 4).forEach((line, place) => {
    if (recent.children[place] !== line) recent.append(line);
  });
  lines.slice(4).forEach((line, place) => {
    if (earlier.children[place] !== line) earlier.insertBefore(line, earlier.children[place]);
  });
  const box = card.querySelector(".earlier");
  box.hidden = lines.length <= 4;
  box.querySelector("summary").textContent = lines.length - 4 + " earlier";
  card.querySelectorAll("details.result").forEach((result, place) => {
    if ("opened" in result.dataset && place) result.open = false;  // by us, not by a click
    if (!("opened" in result.dataset) && !place && wide.matches) result.open = true;
    result.dataset.opened = "";
  });
}

function showLoad(load) {
  for (const item of document.querySelectorAll("[data-pool]")) {
    const found = load[item.dataset.pool];
    const {busy = found, slots = 0} = found;  // the queue is a number
    const text = slots ? `${busy} of ${slots} busy` : `${busy} waiting`;
    const boxes = item.querySelector(".slots");
    while (boxes.children.length < slots) boxes.append(document.createElement("i"));
    while (boxes.children.length > slots) boxes.lastChild.remove();
    [...boxes.children].forEach((box, place) => box.classList.toggle("busy", place < busy));
    item.querySelector(".count").textContent = text;
  }
}

function announce(tasks) {
  if (!tasks.length) return;
  document.getElementById("news").textContent =
    tasks.map(task => `${task.title}: ${task.label.split(",")[0]}.`).join(" ");
}

// Forms. A form that is on its way is not sent again. If the connection is lost it is
// sent again with the same key, so the server takes it once.

document.addEventListener("submit", async event => {
  event.preventDefault();
  const form = event.target;
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  showProblem(form);
  const body = new FormData(form, event.submitter);
  try {
    const answer = await askUntilAnswered(form.getAttribute("action"), {method: "POST", body});
    if (form.elements.key) form.elements.key.value = answer.key;
    formsAnswered += 1;
    await show(answer, false);
    pollNow();
    others.postMessage("changed");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    showProblem(form, error);
    pollNow();
  } finally {
    form.ariaBusy = "false";
  }
});

function showProblem(form, error) {
  const place = form.querySelector(".problem");
  if (!place) return;
  place.textContent = error?.message ?? "";
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  const field = error?.field && form.elements[error.field];
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

for (const form of document.forms) form.noValidate = true;  // the server's words are better
document.querySelectorAll(".card").forEach(fold);
document.addEventListener("visibilitychange", () => { if (!document.hidden) pollNow(); });
addEventListener("online", pollNow);
others.addEventListener("message", pollNow);
poll();
