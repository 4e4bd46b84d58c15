// The turns of the conversation as they stand on the page.

import { markdownNodes } from "./markdown.js";
import { text } from "./strings.js";

const log = document.getElementById("log");
const nodes = new WeakMap(); // turn -> its node on the page
const waiting = new Set(); // turns that the next frame draws
const greeting = document.getElementById("greeting");

function line(name, content) {
  const node = document.createElement("p");
  node.className = name;
  node.textContent = content;
  return node;
}

function formatWait(wait_ms) {
  return wait_ms < 1000 ? `${Math.round(wait_ms)} ms` : `${(wait_ms / 1000).toFixed(2)} s`;
}

function isAtEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 48;
}

/** Draw one turn into its node: the text, and under an answer its figures or what went wrong. */
function draw(node, turn) {
  const who = document.createElement("span");
  who.className = "hidden";
  who.textContent = text(turn.role === "user" ? "you" : "assistant");
  const bubble = document.createElement("div");
  bubble.className = turn.writing && !turn.content ? "bubble waiting" : "bubble";
  if (turn.role === "user") bubble.textContent = turn.content;
  else bubble.append(...markdownNodes(turn.content));
  node.setAttribute("aria-busy", String(Boolean(turn.writing)));
  node.replaceChildren(who, bubble);
  if (turn.figures) {
    const { speed, wait_ms, tokens } = turn.figures;
    node.append(line("figures", text("figures", speed.toFixed(1), formatWait(wait_ms), tokens)));
  }
  if (turn.note) node.append(line("figures", text(turn.note)));
  if (turn.problem) node.append(line("problem", turn.problem));
}

/** Put a turn at the end of the page. */
export function showTurn(turn) {
  const node = document.createElement("article");
  node.className = `turn ${turn.role}`;
  greeting.hidden = true;
  nodes.set(turn, node);
  log.append(node);
  draw(node, turn);
  log.scrollTop = log.scrollHeight;
}

/** Draw a turn again after it changed, at most once a frame; the reader's place is kept unless it is the end. */
export function redrawTurn(turn) {
  if (waiting.has(turn)) return;
  waiting.add(turn);
  requestAnimationFrame(() => {
    waiting.delete(turn);
    const follow = isAtEnd();
    draw(nodes.get(turn), turn);
    if (follow) log.scrollTop = log.scrollHeight;
  });
}

/** Show a whole conversation in place of what is there. */
export function showConversation(turns) {
  for (const node of log.querySelectorAll(".turn")) node.remove();
  greeting.hidden = turns.length > 0;
  turns.forEach(showTurn);
}
