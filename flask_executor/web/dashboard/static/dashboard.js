// Asks for the page again while somebody looks at it: every 2 seconds as long as it
// changes, slower when it does not. htmx puts what is new in its place, so that focus,
// open details and what is chosen stay. Without this script the pages work as well.
(() => {
  "use strict";
  const OFTEN = 2000, SELDOM = 30000;
  const news = document.getElementById("news");
  let pause = OFTEN, timer = 0, tag = null, isOver = false;

  const main = () => document.getElementById("main");
  const say = (text) => { if (news.textContent !== text) news.textContent = text; };

  function plan(next) {
    pause = Math.min(next, SELDOM);
    clearTimeout(timer);
    if (!isOver && !document.hidden && main().hasAttribute("hx-get")) timer = setTimeout(look, pause);
  }

  function look() {
    // What is selected would be lost, and who reads it wants it to stay.
    if (!getSelection().isCollapsed) return plan(OFTEN);
    htmx.trigger(main(), "again");
  }

  function over(text) {
    isOver = true;
    say(text);
  }

  addEventListener("htmx:config:request", ({detail: {ctx}}) => {
    if (tag) ctx.request.headers["If-None-Match"] = tag;
  });

  addEventListener("htmx:after:request", (event) => {
    const {status, headers, raw} = event.detail.ctx.response;
    if (status === 304) {
      say("");
      return plan(pause * 1.5);
    }
    if (raw.redirected || ![200, 503].includes(status)) {
      event.preventDefault();
      return over("This page is not shown to you any more. Load it again.");
    }
    tag = headers.get("ETag");
    say("");
    plan(status === 200 ? OFTEN : pause * 1.5);
  });

  addEventListener("htmx:error", () => {
    say("The server does not answer. This page shows what was.");
    plan(pause * 1.5);
  });

  document.addEventListener("visibilitychange", () => plan(document.hidden ? OFTEN : 100));
  for (const name of ["pointerdown", "keydown"]) {
    addEventListener(name, () => { if (pause > OFTEN) plan(OFTEN); }, {passive: true});
  }
  plan(OFTEN);
})();
