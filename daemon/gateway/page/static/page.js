"use strict";

// The gateway takes JSON alone, which a form of another site cannot send.
document.addEventListener("htmx:before:request", (event) => {
  const { request, sourceElement } = event.detail.ctx;
  const repeated = (sourceElement.getAttribute("hx-trigger") ?? "").startsWith("every");
  if (repeated && (paused() || document.hidden)) {
    event.preventDefault();
    return;
  }
  if (request.method === "POST") {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(Object.fromEntries(request.body));
  }
});

function paused() {
  return document.getElementById("pause")?.getAttribute("aria-pressed") === "true";
}

document.getElementById("pause")?.addEventListener("click", (event) => {
  const button = event.currentTarget;
  button.setAttribute("aria-pressed", String(!paused()));
  button.textContent = paused() ? "Resume updates" : "Pause updates";
});

function lost(is) {
  document.getElementById("lost").hidden = !is;
}

document.addEventListener("htmx:error", () => lost(true));
document.addEventListener("htmx:after:request", () => lost(false));
