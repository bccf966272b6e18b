// What every page has: it stays live, destructive actions ask once, the theme can be chosen.
"use strict";

const LIVE_MS = 4000;
const state = { paused: false };
const byId = (id) => document.getElementById(id);

// ---------------------------------------------------------------- live

// People's own doing is left alone: what is ticked, opened or marked stays so.
const OWN = { INPUT: ["checked"], DETAILS: ["open"], SELECT: ["value"] };
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
  !(OWN[element.tagName] || []).includes(name);

function isMarked(element) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && element.contains(selection.anchorNode);
}

function tick() {
  const live = byId("live");
  const busy = document.hidden || state.paused || document.querySelector("dialog[open]");
  if (!live || busy || isMarked(live)) return;
  htmx.trigger(document.body, "live");
}

function showLive(kind, text) {
  const shown = byId("live-state");
  if (!shown) return;
  shown.className = `live ${kind}`;
  byId("live-text").textContent = text;
}

function pauseOrResume(event) {
  state.paused = !state.paused;
  event.target.setAttribute("aria-pressed", String(state.paused));
  showLive(state.paused ? "still" : "", state.paused ? "Updates paused" : "Live");
  tick();
}

// The page stays while a server is away, with what was typed in it.
const isAway = (status) => status >= 500 || status === 429;

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (isAway(xhr.status) || xhr.responseText.includes('id="live"')) return;
  event.detail.shouldSwap = false; // logged out meanwhile, or what it shows is no more
  location.reload();
});
document.addEventListener("htmx:afterSwap", () => {
  if (!state.paused) showLive("", "Live");
  countTicked();
});
for (const lost of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(lost, () => showLive("lost", "No answer, trying again"));
}
document.addEventListener("visibilitychange", tick);

// ---------------------------------------------------------------- questions

function whom(form) {
  if (form.elements.scope?.value === "all") return "all messages that match";
  const count = ticked().length;
  return count === 1 ? "1 message" : `${count} messages`;
}

function ask(form, button) {
  byId("ask-title").textContent = button.dataset.ask.replace("{}", () => whom(form));
  byId("ask-text").textContent = button.dataset.askText;
  byId("ask-yes").textContent = button.dataset.askLabel;
  const dialog = byId("ask");
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    form.elements.confirmed.value = "yes";
    form.requestSubmit(button);
    form.elements.confirmed.value = "";
  };
  dialog.returnValue = "";
  dialog.showModal();
}

document.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (!submitter?.dataset.ask || form.elements.confirmed.value) return;
  event.preventDefault();
  ask(form, submitter);
});

// ---------------------------------------------------------------- ticked rows

function ticked() {
  return [...document.querySelectorAll("input[name=msg_id]:checked")];
}

// Without one there is nothing to do, unless it is for all that match.
function countTicked() {
  const shown = byId("ticked");
  if (!shown) return;
  const count = ticked().length;
  shown.textContent = count ? `${count} selected` : "None selected";
  const { form, value } = byId("scope");
  for (const button of form.querySelectorAll("button")) button.disabled = !count && value === "ticked";
  const all = byId("tick-all");
  if (all) all.checked = count > 0 && count === document.querySelectorAll("[name=msg_id]").length;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "tick-all") {
    for (const box of document.querySelectorAll("[name=msg_id]")) box.checked = event.target.checked;
  }
  if (event.target.type === "checkbox" || event.target.id === "scope") countTicked();
});

// ---------------------------------------------------------------- theme

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

function turnTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  nameTheme();
  document.dispatchEvent(new Event("theme"));
}

document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll("[data-js]")) element.hidden = false;
  for (const element of document.querySelectorAll("[data-no-js]")) element.hidden = true;
  if (byId("theme")) {
    nameTheme();
    byId("theme").addEventListener("click", turnTheme);
  }
  if (byId("live-pause")) byId("live-pause").addEventListener("click", pauseOrResume);
  countTicked();
  document.querySelector("[aria-invalid=true]")?.focus();
  setInterval(tick, LIVE_MS);
});
