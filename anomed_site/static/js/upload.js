// Sends an image piece by piece, so that a lost connection costs seconds and not the whole file.
(() => {
  const CHUNK = 16 * 2 ** 20; // bytes
  const RETRY = [0, 1000, 3000, 5000, 10000, 20000, 30000]; // milliseconds
  const MB = 2 ** 20;

  const form = document.querySelector("[data-upload-create], [data-upload-entry]");
  if (!form || typeof tus === "undefined" || !tus.isSupported) return;
  for (const hidden of document.querySelectorAll("[data-upload-only]")) hidden.hidden = false;
  const part = (name) => form.querySelector(`[data-upload-${name}]`);
  const panel = form.querySelector("[data-upload]");
  const texts = panel.dataset;
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  let upload = null;

  const say = (text) => (part("status").textContent = text);
  const fail = (text) => {
    part("error").textContent = text;
    part("error").hidden = !text;
    if (text) panel.hidden = true;
    part("start").disabled = !text && upload !== null;
  };
  const ask = async (url, body) => {
    const answer = await fetch(url, {
      method: body ? "POST" : "GET",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token, Accept: "application/json" },
      body: body && JSON.stringify(body),
    });
    const facts = await answer.json();
    if (answer.ok) return facts;
    throw new Error((facts.errors ?? []).map((error) => error.detail).join(" ") || texts.textRefused);
  };

  const announce = (file) => {
    if (form.dataset.uploadEntry) return ask(form.dataset.uploadEntry);
    const fields = new FormData(form);
    const entry = { kind: fields.get("kind"), note: fields.get("note"), file_name: file.name, size: file.size };
    for (const name of ["name", "role", "contract", "declared_epsilon", "declared_delta"]) {
      if (fields.get(name)) entry[name] = fields.get(name);
    }
    return ask(form.dataset.uploadCreate, entry);
  };

  const send = (file, entry) => {
    const there = new URL(entry.url, location).pathname;
    if (!entry.upload) return location.assign(there); // it has arrived already
    if (entry.upload.size !== file.size) throw new Error(texts.textOtherSize);
    const leaving = (event) => event.preventDefault();
    upload = new tus.Upload(file, {
      uploadUrl: new URL(entry.upload.url, location).pathname,
      chunkSize: CHUNK,
      retryDelays: RETRY,
      storeFingerprintForResuming: false, // the entry's page knows where to go on
      headers: { "X-CSRFToken": token },
      onProgress: (done, total) => {
        form.querySelector("progress").value = done / total;
        const whole = (bytes) => Math.round(bytes / MB).toLocaleString(document.documentElement.lang);
        say(texts.textProgress.replace("{done}", whole(done)).replace("{total}", whole(total)));
      },
      onShouldRetry: (error) => {
        const status = error.originalResponse?.getStatus() ?? 0;
        const again = status === 0 || status >= 500 || status === 409 || status === 423;
        if (again) say(texts.textWaiting);
        return again;
      },
      onError: () => {
        removeEventListener("beforeunload", leaving);
        if (form.dataset.uploadEntry) fail(texts.textFailed);
        else location.assign(there);
      },
      onSuccess: () => {
        removeEventListener("beforeunload", leaving);
        say(texts.textFinished);
        location.assign(there);
      },
    });
    addEventListener("beforeunload", leaving);
    upload.start();
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = form.querySelector("input[type=file]").files[0];
    if (!file) return fail(texts.textNoFile);
    fail("");
    part("start").disabled = true;
    panel.hidden = false;
    part("file").textContent = file.name;
    say(texts.textPreparing);
    try {
      send(file, await announce(file));
    } catch (error) {
      upload = null;
      fail(error.message);
    }
    return undefined;
  });

  const pause = (paused) => {
    part("pause").hidden = paused;
    part("resume").hidden = !paused;
  };
  part("pause").addEventListener("click", async () => {
    await upload?.abort();
    say(texts.textPaused);
    pause(true);
  });
  part("resume").addEventListener("click", () => {
    upload?.start();
    pause(false);
  });
})();
