// One room. The server is the source of truth: it sends the last messages at each connection, so whatever was missed
// while there was none is there again; and what was said meanwhile waits here until the server has shown it.

const composer = document.getElementById("composer");
const input = document.getElementById("text");
const file = document.getElementById("picture");
const list = document.getElementById("messages");
const empty = document.getElementById("empty");
const notice = document.getElementById("notice");
const pill = document.getElementById("connection");

const PROBLEM_IN_ROOM = 4000; // close codes from here on are this site's own: coming back would not help
const SERVICE_RESTART = 1012;
const NOT_UNDERSTOOD = 1007;
const LONGEST_WAIT = 15_000;
const MOST_SHOWN = 300;

// What a test, or a curious reader in the console, may look at.
const chat = { state: "connecting", connects: 0, reconnects: 0, moves: 0, version: null, pid: null, lastClose: null };
window.chat = chat;

const shown = new Map(); // message id -> element
const outbox = new Map(); // key -> { text, element }, until the server has shown the message
let socket = null;
let welcomed = null; // the socket that was welcome last
let name = null;
let failures = 0;
let timer = null;

// ---- connection ------------------------------------------------------------------------------------------------

function connect() {
  clearTimeout(timer);
  setState("connecting");
  const address = new URL(composer.dataset.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.addEventListener("message", (event) => receive(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => closed(event));
}

function closed(event) {
  chat.lastClose = event.code;
  if (event.code >= PROBLEM_IN_ROOM || event.code === NOT_UNDERSTOOD) {
    setState("closed");
    tell("This room is gone. Reload the page to see what there is.", { stay: true });
    return;
  }
  failures += 1;
  // Polite: everyone was cut off at the same instant, so everyone waits a random time; and ever longer if it continues.
  const longest = event.code === SERVICE_RESTART && failures === 1 ? 300 : Math.min(LONGEST_WAIT, 500 * 2 ** failures);
  setState("waiting");
  if (navigator.onLine) timer = setTimeout(connect, 50 + Math.random() * longest);
}

addEventListener("online", () => chat.state === "waiting" && connect());

function setState(state) {
  chat.state = state;
  pill.dataset.state = state;
  const words = { live: "live", connecting: "connecting", waiting: "reconnecting", closed: "closed" };
  document.getElementById("state").textContent = words[state];
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const times = `${count(chat.moves, "move")} · ${count(chat.reconnects, "reconnect")}`;
  document.getElementById("served").textContent =
    state === "live" ? `version ${chat.version} · process ${chat.pid} · ${times}` : "";
}

function receive(data) {
  if (data.type === "welcome") welcome(data);
  else if (data.type === "message") show(data.message);
  else if (data.type === "refused") refused(data);
  else if (data.type === "problem") tell(data.text, { stay: true });
}

function welcome(data) {
  failures = 0;
  name = data.name;
  // On a socket that was welcome already: another process of the site has taken this connection over.
  const moved = socket === welcomed;
  welcomed = socket;
  if (!moved) chat.connects += 1;
  chat.reconnects = chat.connects - 1;
  chat.moves = data.moves;
  const updated = chat.version !== null && chat.version !== data.version;
  chat.version = data.version;
  chat.pid = data.pid;
  setState("live");
  if (updated) tell(`The site now runs version ${data.version}. You did not have to do anything.`);
  else if (!notice.hidden) notice.hidden = true;
  const kept = atTheEnd();
  if (!moved) {
    list.replaceChildren();
    shown.clear();
  }
  for (const message of data.messages) show(message);
  for (const [key, { text, element }] of outbox) {
    list.append(element);
    socket.send(JSON.stringify({ key, text }));
  }
  empty.hidden = list.childElementCount > 0;
  group();
  if (kept) toTheEnd();
}

// ---- messages --------------------------------------------------------------------------------------------------

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  // The key lets the server see that a message which had to be sent twice is one message.
  // (crypto.randomUUID is there only over HTTPS and on localhost.)
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const element = render({ id: null, author: name ?? "You", text, created: new Date(), picture: null });
  element.classList.add("unsent");
  outbox.set(key, { text, element });
  list.append(element);
  empty.hidden = true;
  group();
  toTheEnd();
  if (chat.state === "live") socket.send(JSON.stringify({ key, text }));
});

function show(message) {
  const kept = atTheEnd();
  const key = message.key.replaceAll("-", "");
  outbox.get(key)?.element.remove();
  outbox.delete(key);
  const element = render(message);
  if (shown.has(message.id)) shown.get(message.id).replaceWith(element);
  else {
    // Messages of two processes may cross on their way; their ids tell the order.
    const after = [...list.children].find((other) => Number(other.dataset.id || Infinity) > message.id);
    list.insertBefore(element, after ?? null);
  }
  shown.set(message.id, element);
  while (shown.size > MOST_SHOWN) {
    shown.delete(Number(list.firstElementChild.dataset.id));
    list.firstElementChild.remove();
  }
  empty.hidden = true;
  group();
  if (kept) toTheEnd();
}

// Several messages of one person in a row look like one.
function group() {
  let author = null;
  for (const element of list.children) {
    element.classList.toggle("follows", element.dataset.author === author);
    author = element.dataset.author;
  }
}

function refused(data) {
  outbox.get(data.key.replaceAll("-", ""))?.element.remove();
  outbox.delete(data.key.replaceAll("-", ""));
  tell(data.text);
}

// Everything that a visitor wrote goes through textContent: it is never HTML.
function render(message) {
  const mine = message.author === name;
  const element = make("li", mine ? "message mine" : "message");
  element.dataset.id = message.id ?? "";
  element.dataset.author = message.author;
  const badge = make("span", "badge", message.author.slice(0, 1).toUpperCase());
  badge.setAttribute("aria-hidden", "true");
  colour(badge, message.author);
  const bubble = make("div", "bubble");
  const head = make("p", "head");
  head.append(make("strong", "", message.author), when(message.created));
  bubble.append(head);
  if (message.text) bubble.append(make("p", "text", message.text));
  if (message.picture) bubble.append(renderPicture(message.picture, message.author));
  element.append(badge, bubble);
  return element;
}

function renderPicture(picture, author) {
  if (picture.state === "failed") return make("p", "placeholder", "No thumbnail could be made of this picture.");
  if (picture.state !== "ready") return make("p", "placeholder busy", "A worker is making a thumbnail…");
  const link = make("a", "thumbnail");
  link.href = picture.original;
  link.target = "_blank";
  link.rel = "noopener";
  const image = make("img");
  image.src = picture.thumbnail;
  image.width = picture.width;
  image.height = picture.height;
  image.alt = `A picture from ${author}`;
  link.append(image);
  return link;
}

function when(created) {
  const date = new Date(created);
  const time = make("time", "muted", date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString();
  return time;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function colour(element, text) {
  let hue = 0;
  for (const character of text) hue = (hue * 31 + character.codePointAt(0)) % 360;
  element.style.setProperty("--hue", hue);
}

function atTheEnd() {
  return list.scrollHeight - list.scrollTop - list.clientHeight < 80;
}

function toTheEnd() {
  list.scrollTop = list.scrollHeight;
}

// ---- pictures --------------------------------------------------------------------------------------------------

file.addEventListener("change", () => {
  for (const one of file.files) upload(one);
  file.value = "";
});
addEventListener("paste", (event) => [...event.clipboardData.files].forEach(upload));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  [...event.dataTransfer.files].forEach(upload);
});

async function upload(picture) {
  const body = new FormData();
  body.set("picture", picture);
  body.set("csrfmiddlewaretoken", composer.elements.csrfmiddlewaretoken.value);
  try {
    const response = await fetch(composer.dataset.upload, { method: "POST", body });
    const answer = await response.json();
    if (answer.error || answer.problem) tell(answer.error ?? answer.problem);
  } catch {
    tell("The picture could not be sent. Try it again in a moment.");
  }
}

// ---- the rest --------------------------------------------------------------------------------------------------

let hide = null;
function tell(text, { stay = false } = {}) {
  clearTimeout(hide);
  notice.textContent = text;
  notice.hidden = false;
  if (!stay) hide = setTimeout(() => (notice.hidden = true), 6000);
}

connect();
