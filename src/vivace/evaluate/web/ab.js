// The page of the blind comparison: ask, read two answers, vote, see what all votes say.

const STRINGS = {
  en: {
    title: "A or B?", results: "Results", ask: "Ask", next: "Next question", own: "A question of your own",
    intro: "Two models answer the same question. You are not told which is which until you have voted.",
    left: "A is better", right: "B is better", tie: "Equally good or bad", model: "model", votes: "votes",
    waiting: "Both are writing …", lost: "The server does not answer.", voted: "Your vote is kept. Thank you.", none: "There are no votes yet.",
    standing: (s) => `${s.model} beats ${s.other} in ${percent(s.win_rate)} of votes (95 %: ${percent(s.low)} to ` +
      `${percent(s.high)}): ${s.wins} won, ${s.losses} lost, ${s.ties} ties; p = ${s.p_value.toFixed(3)}.`,
    bias: (share) => `${percent(share)} of decided votes went to A, whoever stood there.`, other: "中文",
  },
  zh: {
    title: "A 还是 B？", results: "结果", ask: "提问", next: "下一题", own: "输入你自己的问题",
    intro: "两个模型回答同一个问题。投票之前不会告诉你哪个是哪个。",
    left: "A 更好", right: "B 更好", tie: "不相上下", model: "模型", votes: "票数",
    waiting: "两个模型正在回答……", lost: "服务器没有响应。", voted: "已记录你的投票，谢谢。", none: "还没有投票。",
    standing: (s) => `${s.model} 对 ${s.other} 的胜率为 ${percent(s.win_rate)}（95% 区间 ${percent(s.low)} 至 ` +
      `${percent(s.high)}）：胜 ${s.wins}，负 ${s.losses}，平 ${s.ties}；p = ${s.p_value.toFixed(3)}。`,
    bias: (share) => `有胜负的投票中 ${percent(share)} 投给了 A 一侧。`, other: "English",
  },
};
const KEYS = { 1: "[data-choice=left]", 2: "[data-choice=right]", 0: "[data-choice=tie]", n: "#next" };
const find = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let language = (localStorage.getItem("vivace.ab.language") || navigator.language || "en").startsWith("zh") ? "zh" : "en";
let pair = null;

function say(name) { return STRINGS[language][name]; }

function showLanguage() {
  document.documentElement.lang = language;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  find("own").placeholder = say("own");
  find("own").setAttribute("aria-label", say("own"));
  find("language").textContent = say("other");
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, options).catch(() => { throw new Error(say("lost")); });
  const value = await response.json();
  if (!response.ok) throw Object.assign(new Error(value.error), { isFinal: response.status === 409 });
  return value;
}

function setBusy(busy) {
  for (const button of document.querySelectorAll("form button")) button.disabled = busy;
  find("status").classList.toggle("working", busy);
}

function setVotable(votable) {
  for (const button of document.querySelectorAll("[data-choice]")) button.disabled = !votable;
}

async function ask(prompt) {
  setBusy(true);
  find("pair").hidden = true;
  find("status").textContent = say("waiting");
  try {
    pair = await call("/api/pair", prompt ? { prompt } : {});
    for (const side of ["left", "right"]) {
      find(side).textContent = pair[side];
      find(`${side}-name`).textContent = "";
      find(`${side}-card`).classList.remove("chosen");
    }
    find("own").value = "";
    find("own").blur();  // the next keys are a vote
    find("prompt").textContent = pair.prompt;
    find("pair").hidden = false;
    find("status").textContent = "";
    setVotable(true);
  } catch (error) {
    find("status").textContent = error.message;
  }
  setBusy(false);
}

async function vote(choice) {
  setVotable(false);
  try {
    const names = await call("/api/vote", { id: pair.id, choice });
    for (const side of ["left", "right"]) {
      find(`${side}-name`).textContent = names[side];
      find(`${side}-card`).classList.toggle("chosen", side === choice);
    }
    find("status").textContent = say("voted");
    find("next").focus();
    if (!find("results").hidden) await showResults();
  } catch (error) {
    find("status").textContent = error.message;
    setVotable(!error.isFinal);
  }
}

async function showResults() {
  const { standing, ratings } = await call("/api/results");
  const known = standing.win_rate !== null;
  find("results").hidden = false;
  find("standing").textContent = known ? say("standing")(standing) : say("none");
  find("bias").textContent = standing.left_rate === null ? "" : say("bias")(standing.left_rate);
  find("interval").style.left = `${100 * standing.low}%`;
  find("interval").style.width = `${100 * (standing.high - standing.low)}%`;
  find("rate").style.left = `${100 * (known ? standing.win_rate : 0.5)}%`;
  find("ratings").replaceChildren(...ratings.map((row) => {
    const line = document.createElement("tr");
    const cells = [row.model, row.elo.toFixed(0), `${row.low.toFixed(0)} – ${row.high.toFixed(0)}`, row.num_votes];
    for (const text of cells) line.appendChild(document.createElement("td")).textContent = text;
    return line;
  }));
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(find("own").value.trim());
});
find("next").addEventListener("click", () => ask(""));
find("show-results").addEventListener("click", () => {
  if (find("results").hidden) showResults();
  else find("results").hidden = true;
});
find("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("vivace.ab.language", language);
  showLanguage();
  if (!find("results").hidden) showResults();
});
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => vote(button.dataset.choice));
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  const button = document.querySelector(KEYS[event.key.toLowerCase()] ?? "#none");
  if (button && !button.disabled && button.offsetParent !== null) button.click();
});
showLanguage();
setVotable(false);
document.documentElement.dataset.ready = "true";
