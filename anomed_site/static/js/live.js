// Listens for changes of the challenge that this page shows, and lets htmx fetch what has changed.
(() => {
  const page = document.querySelector("[data-live]");
  if (!page) return;
  const LOOK_AGAIN = 30000; // milliseconds between two looks where the server takes no more listeners
  let seen = page.dataset.liveVersion;
  let source = null;
  let timer = null;

  const changed = () => htmx.trigger(document.body, "challenge-changed");
  const listen = () => {
    clearTimeout(timer);
    source = new EventSource(page.dataset.live);
    source.addEventListener("changed", (event) => {
      if (event.data === seen) return;
      seen = event.data;
      changed();
    });
    source.addEventListener("error", () => {
      if (source?.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
      timer = setTimeout(() => {
        changed();
        listen();
      }, LOOK_AGAIN);
    });
  };
  const hush = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  // A browser opens few connections to one server: hidden tabs give theirs back.
  document.addEventListener("visibilitychange", () => {
    hush();
    if (!document.hidden) listen();
  });
  addEventListener("pagehide", hush);
  addEventListener("pageshow", (event) => {
    if (event.persisted) listen();
  });
  if (!document.hidden) listen();
})();
