// Every word the page shows, in its two languages, and which of them is in use.

const STRINGS = {
  en: {
    skip: "Skip to the message box",
    tools: "Chat",
    newChat: "New chat",
    settings: "Settings",
    conversation: "Conversation",
    greeting: "Ask anything. The answer is computed on this machine.",
    message: "Message",
    hint: "Write a message",
    send: "Send",
    stop: "Stop",
    keys: "Enter sends, Shift+Enter starts a new line.",
    system: "System prompt",
    temperature: "Temperature",
    maxTokens: "Longest answer, in tokens",
    theme: "Colours",
    themeAuto: "As the system",
    themeLight: "Light",
    themeDark: "Dark",
    apiKey: "API key, if the server asks for one",
    close: "Close",
    you: "You",
    assistant: "Assistant",
    loading: "The model is loading",
    offline: "The server does not answer",
    stopped: "Stopped.",
    reconnecting: "The connection broke; reconnecting…",
    cutOff: "The answer reached its longest length.",
    brokenOff: "The connection broke before the answer was complete.",
    figures: (speed, wait, tokens) => `${speed} tokens/s, first token after ${wait}, ${tokens} tokens`,
    other: "中文",
  },
  zh: {
    skip: "跳到输入框",
    tools: "聊天",
    newChat: "新对话",
    settings: "设置",
    conversation: "对话",
    greeting: "随便问吧，回答就在这台机器上计算。",
    message: "消息",
    hint: "输入消息",
    send: "发送",
    stop: "停止",
    keys: "回车发送，Shift+回车换行。",
    system: "系统提示",
    temperature: "温度",
    maxTokens: "回答的最大长度（词元数）",
    theme: "颜色",
    themeAuto: "跟随系统",
    themeLight: "浅色",
    themeDark: "深色",
    apiKey: "API 密钥（如果服务器需要）",
    close: "关闭",
    you: "你",
    assistant: "助手",
    loading: "正在加载模型",
    offline: "服务器没有响应",
    stopped: "已停止。",
    reconnecting: "连接中断，正在重新连接……",
    cutOff: "回答达到了最大长度。",
    brokenOff: "回答完成之前连接中断了。",
    figures: (speed, wait, tokens) => `${speed} 词元/秒，首个词元 ${wait}，共 ${tokens} 个词元`,
    other: "English",
  },
};

let language = "en";

/** The language of a browser that prefers `tags`, most wanted first. */
export function preferredLanguage(tags) {
  for (const tag of tags) {
    const primary = tag.toLowerCase().split("-")[0];
    if (primary in STRINGS) return primary;
  }
  return "en";
}

/** Use a language for everything that is on the page and everything that comes. */
export function useLanguage(next) {
  language = next in STRINGS ? next : "en";
  const words = STRINGS[language];
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words[element.dataset.text];
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = words[element.dataset.hint];
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
  }
}

/** The language in use. */
export function currentLanguage() {
  return language;
}

/** The language that is not in use. */
export function otherLanguage() {
  return language === "en" ? "zh" : "en";
}

/** A text in the language in use; texts with parts are functions of them. */
export function text(name, ...parts) {
  const entry = STRINGS[language][name];
  return typeof entry === "function" ? entry(...parts) : entry;
}
