// What the browser remembers between visits: the conversation and the settings. Nothing else is kept anywhere.

const CONVERSATION = "vivace.conversation";
const SETTINGS = "vivace.settings";

export const DEFAULT_SETTINGS = {
  system: "",
  temperature: 0.6,
  maxTokens: 1024,
  theme: "auto",
  language: "",
  apiKey: "",
};

function read(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback; // storage is off, or holds something that is not ours
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // storage is off or full: the page works on, it only forgets
  }
}

/** The remembered turns: {role, content} and, on answers, {figures, note, problem}. */
export function loadConversation() {
  const turns = read(CONVERSATION, []);
  if (!Array.isArray(turns)) return [];
  const ours = turns.filter((turn) => typeof turn?.content === "string" && typeof turn.role === "string");
  return ours.map((turn) => ({ ...turn, writing: false })); // an answer that was being written is so no longer
}

export function saveConversation(turns) {
  write(CONVERSATION, turns);
}

export function loadSettings() {
  return { ...DEFAULT_SETTINGS, ...read(SETTINGS, {}) };
}

export function saveSettings(settings) {
  write(SETTINGS, settings);
}
