// Asks for the state of the task on this page, until it has ended.
// Without JavaScript the page loads itself again instead.
const task = () => document.querySelector(".fx-task[data-location]");
let seen = "";

async function refresh(shown) {
  try {
    const headers = {"HX-Request": "true"};
    const answer = await fetch(shown.dataset.location, {headers, signal: AbortSignal.timeout(30000)});
    if (answer.status === 404 || answer.status === 410) return location.replace(shown.dataset.location);
    const text = answer.ok ? await answer.text() : seen;
    if (text !== seen) replace(shown, text);
    seen = text;
  } catch {
    // The connection is lost: the next one may work.
  }
  follow();
}

function replace(shown, text) {
  const focused = document.activeElement?.id;
  const made = new DOMParser().parseFromString(text, "text/html").querySelector(".fx-task");
  const [old, state] = [shown, made].map((task) => task?.querySelector(".fx-state"));
  if (!old || !state) return;
  for (const {name} of [...shown.attributes]) shown.removeAttribute(name);
  for (const {name, value} of made.attributes) shown.setAttribute(name, value);
  // The live region stays, so that a screen reader says a new state, and nothing else.
  if (old.textContent !== state.textContent) old.textContent = state.textContent;
  while (old.nextSibling) old.nextSibling.remove();
  while (state.nextSibling) shown.append(state.nextSibling);
  if (focused) document.getElementById(focused)?.focus();
}

function follow() {
  const shown = task();
  if (shown) setTimeout(refresh, 1000 * shown.dataset.retry, shown);
}

follow();
