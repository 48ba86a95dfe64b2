// Live pages: a stream says that there is news, and htmx asks for the parts that may have changed.
(() => {
  "use strict";
  const QUIET = 1000; // ms between two askings, however much happens
  const csrf = document.querySelector("meta[name=csrf]").content;
  document.addEventListener("htmx:configRequest", (event) => { event.detail.headers["X-CSRF-Token"] = csrf; });

  const place = document.querySelector("[data-stream]");
  if (!place) return;
  let due = null, last = 0;
  const tell = () => {
    due = null;
    last = Date.now();
    htmx.trigger(document.body, "news");
  };
  const news = () => { due ??= setTimeout(tell, Math.max(0, last + QUIET - Date.now())); };
  const source = new EventSource(place.dataset.stream);
  for (const kind of ["news", "state", "trial", "progress", "webhook"]) source.addEventListener(kind, news);
  // A stream that ends because its job did is closed by the server for good; one that broke comes again by itself.
  source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) news(); });
  addEventListener("pagehide", () => source.close());

  const announced = document.getElementById("announced");
  let state = document.getElementById("head")?.dataset.state;
  document.addEventListener("htmx:afterSettle", () => {
    const now = document.getElementById("head")?.dataset.state;
    if (announced && now && now !== state) announced.textContent = `${announced.dataset.subject} is ${now}`;
    state = now;
  });
})();
