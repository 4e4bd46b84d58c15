// The part of Markdown that chat models write, as DOM nodes. Text reaches the page through text nodes only: nothing a
// model writes is ever parsed as HTML.

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*([^*\s](?:[^*]*[^*\s])?)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/;
const FENCE = /^\s*(```+|~~~+)\s*([\w+#.-]*)\s*$/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const BULLET = /^\s*[-*+]\s+(.*)$/;
const NUMBER = /^\s*(\d{1,9})[.)]\s+(.*)$/;
const QUOTE = /^\s*>\s?(.*)$/;

function element(name, ...children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function link(label, address) {
  const node = element("a", label);
  node.href = address;
  node.rel = "noopener noreferrer nofollow";
  node.target = "_blank";
  return node;
}

/** Inline marks of one line (code, strong, emphasis, links) as nodes. */
export function inlineNodes(line) {
  const nodes = [];
  let rest = line;
  for (let match = INLINE.exec(rest); match; match = INLINE.exec(rest)) {
    const [whole, , code, strong, underlined, emphasis, label, address] = match;
    if (match.index) nodes.push(document.createTextNode(rest.slice(0, match.index)));
    if (code !== undefined) nodes.push(element("code", code));
    else if (strong ?? underlined) nodes.push(element("strong", ...inlineNodes(strong ?? underlined)));
    else if (emphasis) nodes.push(element("em", ...inlineNodes(emphasis)));
    else nodes.push(link(label, address));
    rest = rest.slice(match.index + whole.length);
  }
  if (rest) nodes.push(document.createTextNode(rest));
  return nodes;
}

function takeFence(lines, start, fence) {
  const body = [];
  let at = start + 1;
  while (at < lines.length && !lines[at].trim().startsWith(fence[1])) body.push(lines[at++]);
  const code = element("code", body.join("\n"));
  if (fence[2]) code.dataset.language = fence[2];
  return [element("pre", code), at + 1];
}

function takeList(lines, start, kind, pattern, group) {
  const list = element(kind);
  let at = start;
  for (let match; at < lines.length && (match = pattern.exec(lines[at])); at++) {
    list.append(element("li", ...inlineNodes(match[group])));
  }
  if (kind === "ol") list.start = Number(NUMBER.exec(lines[start])[1]);
  return [list, at];
}

function takeQuote(lines, start) {
  const inner = [];
  let at = start;
  for (let match; at < lines.length && (match = QUOTE.exec(lines[at])); at++) inner.push(match[1]);
  return [element("blockquote", ...paragraphNodes(inner)), at];
}

function paragraphNodes(lines) {
  const nodes = [];
  lines.forEach((line, index) => {
    if (index) nodes.push(element("br"));
    nodes.push(...inlineNodes(line));
  });
  return nodes;
}

function startsBlock(line) {
  return !line.trim() || [FENCE, HEADING, BULLET, NUMBER, QUOTE].some((pattern) => pattern.test(line));
}

function takeParagraph(lines, start) {
  let at = start + 1;
  while (at < lines.length && !startsBlock(lines[at])) at++;
  return [element("p", ...paragraphNodes(lines.slice(start, at))), at];
}

function takeBlock(lines, at) {
  const fence = FENCE.exec(lines[at]);
  if (fence) return takeFence(lines, at, fence);
  const heading = HEADING.exec(lines[at]);
  if (heading) return [element(`h${Math.min(heading[1].length + 2, 5)}`, ...inlineNodes(heading[2])), at + 1];
  if (BULLET.test(lines[at])) return takeList(lines, at, "ul", BULLET, 1);
  if (NUMBER.test(lines[at])) return takeList(lines, at, "ol", NUMBER, 2);
  if (QUOTE.test(lines[at])) return takeQuote(lines, at);
  return takeParagraph(lines, at);
}

/** A whole text as block nodes; an unfinished code fence (an answer still being written) runs to the end. */
export function markdownNodes(text) {
  const lines = text.split("\n");
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const [node, next] = takeBlock(lines, at);
    nodes.push(node);
    at = next;
  }
  return nodes;
}
