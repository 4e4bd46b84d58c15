// The chat page: one conversation, one answer at a time.

import { hint, readiness, streamAnswer } from "./api.js";
import { StreamBrokenError } from "./client/index.js";
import { loadConversation, loadSettings, saveConversation, saveSettings } from "./store.js";
import { currentLanguage, otherLanguage, preferredLanguage, text, useLanguage } from "./strings.js";
import { redrawTurn, showConversation, showTurn } from "./turns.js";

const READY_POLL_MS = 500;
const WATCH_POLL_MS = 10000;

const byId = (id) => document.getElementById(id);
const message = byId("message");
const settings = loadSettings();
let turns = loadConversation();
let hintedTurns = 0; // how long the conversation was when the server was told that it goes on
let running = null; // the AbortController of the answer being written

/** What the model is told: the system prompt and the turns, without questions that never got a word of answer. */
function wireMessages() {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  const unanswered = (turn, next) => turn.role === "user" && next && !next.content && !next.writing;
  const said = turns.filter((turn, index) => turn.content && !turn.writing && !unanswered(turn, turns[index + 1]));
  return [...system, ...said.map(({ role, content }) => ({ role, content }))];
}

function showRunning(controller) {
  running = controller;
  byId("send").hidden = controller !== null;
  byId("stop").hidden = controller === null;
}

function figuresOf(usage, sent_ms, first_ms, last_ms) {
  const between_s = (last_ms - first_ms) / 1000;
  const tokens = usage.completion_tokens;
  const speed = between_s > 0 ? (tokens - 1) / between_s : 0;
  return { speed, wait_ms: first_ms - sent_ms, tokens };
}

/** Receive one answer into `turn`, drawing it as it grows. */
async function receive(turn, signal) {
  const sent_ms = performance.now();
  let first_ms = null;
  let last_ms = sent_ms;
  const onRetry = () => {
    turn.note = "reconnecting";
    redrawTurn(turn);
  };
  for await (const { text: piece, finish, usage } of streamAnswer(wireMessages(), settings, signal, onRetry)) {
    turn.note = null;
    if (piece) {
      last_ms = performance.now();
      first_ms ??= last_ms;
      turn.content += piece;
    }
    if (finish === "length") turn.isCutOff = true;
    if (usage && first_ms !== null) turn.figures = figuresOf(usage, sent_ms, first_ms, last_ms);
    redrawTurn(turn);
  }
}

function problemOf(error) {
  if (error.name === "AbortError") return null;
  const isLost = error instanceof TypeError || (error instanceof StreamBrokenError && !error.status && !error.code);
  return isLost ? text("brokenOff") : error.message;
}

async function send() {
  const content = message.value.trim();
  if (!content || running) return;
  message.value = "";
  const question = { role: "user", content };
  const answer = { role: "assistant", content: "", writing: true };
  turns.push(question, answer);
  showTurn(question);
  showTurn(answer);
  saveConversation(turns);
  const conversation = turns;
  showRunning(new AbortController());
  try {
    await receive(answer, running.signal);
  } catch (error) {
    const problem = problemOf(error);
    if (problem === null) answer.note = "stopped";
    else answer.problem = problem;
  } finally {
    if (answer.note === "reconnecting") answer.note = null;
    if (answer.isCutOff) answer.note = "cutOff";
    answer.writing = false;
    showRunning(null);
    redrawTurn(answer);
    if (conversation === turns) saveConversation(turns);
    message.focus();
  }
}

function newChat() {
  running?.abort();
  turns = [];
  saveConversation(turns);
  showConversation(turns);
  message.focus();
}

/** Show what the server is doing, often while it loads and seldom after. */
async function watchServer() {
  const state = await readiness();
  const ready = state?.status === "ready";
  const line = byId("model");
  line.textContent = ready ? state.model : (state?.message ?? text(state ? "loading" : "offline"));
  line.classList.toggle("busy", state?.status === "loading");
  document.documentElement.dataset.ready = String(ready);
  setTimeout(watchServer, ready ? WATCH_POLL_MS : READY_POLL_MS);
}

function applyTheme() {
  if (settings.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = settings.theme;
}

function applyLanguage(language) {
  useLanguage(language);
  byId("language").textContent = text("other");
  byId("language").lang = otherLanguage();
  showConversation(turns);
}

function numberIn(field, fallback) {
  return field.value !== "" && field.checkValidity() ? field.valueAsNumber : fallback;
}

/** Tie the settings dialog to the settings; a field with an impossible value keeps the old one. */
function bindSettings() {
  const fields = [
    ["system", "system", (field) => field.value],
    ["temperature", "temperature", (field) => numberIn(field, settings.temperature)],
    ["max-tokens", "maxTokens", (field) => numberIn(field, settings.maxTokens)],
    ["theme", "theme", (field) => field.value],
    ["api-key", "apiKey", (field) => field.value.trim()],
  ];
  for (const [id, name, valueOf] of fields) {
    byId(id).addEventListener("change", () => {
      settings[name] = valueOf(byId(id));
      byId(id).value = settings[name];
      saveSettings(settings);
      applyTheme();
    });
  }
  byId("open-settings").addEventListener("click", () => {
    for (const [id, name] of fields) byId(id).value = settings[name];
    byId("settings").showModal();
  });
}

/** Somebody begins to type: once a turn, the server is told. */
function hintOnce() {
  if (running || hintedTurns === turns.length || !turns.length) return;
  hintedTurns = turns.length;
  hint(wireMessages(), settings);
}

function bindComposer() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  message.addEventListener("input", hintOnce);
  message.addEventListener("keydown", (event) => {
    // isComposing: the Enter that chooses a Chinese candidate must not send
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing && !byId("settings").open) running?.abort();
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("new-chat").addEventListener("click", newChat);
  byId("language").addEventListener("click", () => {
    settings.language = otherLanguage();
    saveSettings(settings);
    applyLanguage(settings.language);
  });
}

applyTheme();
applyLanguage(settings.language || preferredLanguage(navigator.languages));
bindSettings();
bindComposer();
watchServer();
document.documentElement.dataset.language = currentLanguage();
