// Small conveniences; every page works without them.
(() => {
  // Terms explain themselves on hover and focus.
  const explain = (root) => {
    for (const term of root.querySelectorAll("[data-bs-toggle=tooltip]")) bootstrap.Tooltip.getOrCreateInstance(term);
  };
  explain(document);
  document.body.addEventListener("htmx:load", (event) => explain(event.detail.elt));
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    for (const term of event.detail.target.querySelectorAll("[data-bs-toggle=tooltip]")) {
      bootstrap.Tooltip.getInstance(term)?.dispose();
    }
  });

  // Numbers that a live update changed are marked for a moment.
  const figures = (root) =>
    new Map([...root.querySelectorAll("[data-live-key]")].map((cell) => [cell.dataset.liveKey, cell.textContent]));
  let before = new Map();
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    before = figures(event.detail.target);
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    for (const cell of event.detail.target.querySelectorAll("[data-live-key]")) {
      if (before.get(cell.dataset.liveKey) !== cell.textContent) cell.classList.add("is-fresh");
    }
  });

  // On narrow screens the tabs scroll: show the one that is open.
  const tabs = document.querySelector(".tabs");
  const here = tabs?.querySelector("[aria-current]");
  if (here) tabs.scrollLeft = here.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - here.clientWidth) / 2;

  for (const button of document.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => print());
  }

  // Copying a token, or commands.
  if (navigator.clipboard) {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
        button.textContent = button.dataset.copied;
      });
    }
  }
})();
