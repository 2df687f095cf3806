// The page: what the reader types becomes requests to the worker, and its answers are shown. The state is the address.
const VERSION = document.querySelector('meta[name="site-version"]').content;
const here = (name) => new URL(name, import.meta.url).href;
const $ = (id) => document.getElementById(id);

const FIELDS = ["input_size", "num_classes", "head", "batch_norm", "soft_max"];
const TYPING = 60; // milliseconds without a key, after which an answer is asked for
const CANVAS = 8192; // pixels of a picture's longer side, which every browser can draw
const SLOW = 700; // milliseconds of work, after which the page says so

// Each view: its tab, the fields that it adds, and the formats in which its result is saved.
const VIEWS = {
  overview: { tab: "Overview", fields: ["style"], saves: "overview" },
  fields: { tab: "Receptive fields", fields: [], saves: "fields" },
  memory: { tab: "Memory", fields: ["mode", "optimizer", "dtype", "batch", "gpu"], saves: "memory" },
  explore: { tab: "Explore", fields: [], saves: null },
  diff: { tab: "Diff", fields: ["ref"], saves: "diff" },
  compare: { tab: "Compare", fields: ["others"], saves: "compare" },
  inspect: { tab: "File", fields: [], saves: "inspect", needsFile: true },
  lesson: { tab: "Lessons", fields: ["topic"], saves: "lesson" },
};

const LABELS = {
  style: "Drawing", mode: "Mode", optimizer: "Optimizer", dtype: "dtype", batch: "Batch", gpu: "GPU", ref: "Compared with",
  others: "Other models, one in a line", topic: "Topic",
};
const PLACEHOLDERS = { batch: "1", gpu: "24GiB, or a card", ref: "the nearest VGG", others: "A\nE" };

const LAYERS_ALONE = /(?<!\.index)\.json$|\.prototxt$/i; // files without weights, which cannot be inspected

const state = { view: "overview", model: "D", chosen: {} };
let offered = {}; // the choices that Python knows
let files = [];
let number = 0;
let quick = false; // whether Python started from a snapshot
const pending = new Map(); // the request and the resolve function of each id
let worker;

// Start Python, also anew: with the open files, and the questions that wait for an answer.
function startPython() {
  worker?.terminate();
  worker = startWorker("worker.js");
  worker.onmessage = ({ data }) => receive(data);
  worker.postMessage({ snapshot: VERSION });
  if (files.length) worker.postMessage({ id: 0, files });
  for (const [id, { request }] of pending) worker.postMessage({ id, ...request });
}

function receive(data) {
  if (data.failed) return status(`Python did not start: ${data.failed}`, true);
  if (data.started) return void (quick = data.started === "snapshot");
  const asked = pending.get(data.id);
  pending.delete(data.id);
  asked?.resolve(data);
  if (data.ended) startPython();
  showWork();
}

// A worker made from a Blob keeps this page's Content-Security-Policy; one made from an address would have none.
function startWorker(name) {
  const code = `const early = [];
    self.onmessage = (event) => early.push(event);
    import(${JSON.stringify(here(name))}).then(
      () => early.forEach((event) => self.onmessage(event)),
      (error) => self.postMessage({ failed: error.message }),
    );`;
  return new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
}

function ask(request) {
  return new Promise((resolve) => {
    pending.set(++number, { request, resolve });
    worker.postMessage({ id: number, ...request });
    showWork();
  });
}

// What takes long is said, and can be stopped: Python is then started anew.
let slow;
function showWork() {
  if (!offered.version) return;
  clearTimeout(slow);
  if (pending.size) slow = setTimeout(() => showStop(true), SLOW);
  else if (!$("stop").hidden) showStop(false);
}

function showStop(working) {
  status(working ? "Working" : "Ready");
  $("stop").hidden = !working;
}

function stop() {
  const answer = { problem: "stopped", remedy: "change the model, or choose a view to ask again" };
  for (const { resolve } of pending.values()) resolve({ answer });
  pending.clear();
  startPython();
  showWork();
}

function status(text, wrong = false) {
  $("state").textContent = text;
  $("state").classList.toggle("wrong", wrong);
}

// --- the state and the address -------------------------------------------------------------------------------------

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const view = given.get("view") ?? "";
  state.view = Object.hasOwn(VIEWS, view) && (files.length || !VIEWS[view].needsFile) ? view : "overview";
  state.model = given.get("model") ?? "D";
  state.chosen = Object.fromEntries([...given].filter(([name]) => name !== "view" && name !== "model"));
}

// A step that "back" undoes keeps the address before it; a key typed does not.
function writeAddress(before) {
  const chosen = Object.entries(state.chosen).filter(([, value]) => value);
  const words = new URLSearchParams({ view: state.view, model: state.model, ...Object.fromEntries(chosen) });
  if (before) history.pushState(null, "", `#${words}`);
  else history.replaceState(null, "", `#${words}`);
}

function fillForm() {
  $("model").value = state.model;
  for (const name of FIELDS) {
    const field = $("ask").elements[name];
    if (field.type === "checkbox") field.checked = Boolean(state.chosen[name]);
    else field.value = state.chosen[name] ?? "";
  }
}

// --- the views -----------------------------------------------------------------------------------------------------

function buildTabs() {
  for (const [name, view] of Object.entries(VIEWS)) {
    const tab = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "answer" }, view.tab);
    tab.addEventListener("click", () => choose(name, true));
    tab.addEventListener("keydown", (event) => moveTab(event, name));
    $("tabs").append(tab);
  }
}

function moveTab(event, name) {
  const names = Object.keys(VIEWS).filter((other) => !$(`tab-${other}`).hidden);
  const place = names.indexOf(name);
  const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
  if (next === undefined) return;
  const other = names.at(next % names.length);
  $(`tab-${other}`).focus();
  choose(other, true);
  event.preventDefault();
}

function choose(view, before = false) {
  state.view = view;
  writeAddress(before);
  for (const name of Object.keys(VIEWS)) {
    const tab = $(`tab-${name}`);
    tab.hidden = Boolean(VIEWS[name].needsFile && !files.length);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
  }
  $("answer").setAttribute("aria-labelledby", `tab-${view}`);
  buildControls();
  refresh();
}

function buildControls() {
  const view = VIEWS[state.view];
  $("controls").replaceChildren(...view.fields.map(control), ...saving(view));
  $("controls").hidden = !$("controls").childElementCount;
}

function control(name) {
  const options = name === "topic" ? Object.keys(offered.topics ?? {}) : offered[name];
  const field = options
    ? element("select", {}, ...(name === "topic" ? [] : [element("option", { value: "" }, "default")]), ...options.map((word) => element("option", { value: word }, word)))
    : element(name === "others" ? "textarea" : "input", { placeholder: PLACEHOLDERS[name] ?? "", spellcheck: "false" });
  if (name === "others") field.rows = 2;
  if (name === "ref") field.setAttribute("list", "words");
  field.name = name;
  field.value = state.chosen[name] ?? (name === "topic" ? "conv" : "");
  field.addEventListener("input", () => {
    state.chosen[name] = field.value;
    later();
  });
  return element("label", {}, `${LABELS[name]} `, field);
}

function saving(view) {
  if (!view.saves || !offered.formats) return [];
  const select = element("select", { "aria-label": "Format" }, ...Object.keys(offered.formats).map((form) => element("option", {}, form)));
  const pictures = view.saves in offered.pictures ? [...offered.pictures[view.saves], "png"] : [];
  select.append(...pictures.map((form) => element("option", { value: `picture ${form}` }, `picture, ${form}`)));
  const button = element("button", { type: "button" }, "Save");
  button.addEventListener("click", () => save(view.saves, select.value));
  return [element("span", { class: "saving" }, select, button)];
}

async function save(what, form) {
  const picture = form.startsWith("picture ") ? form.slice(8) : "";
  const asked = { what, form: picture === "png" ? "svg" : picture || form };
  const { answer, replaced } = await ask({ view: "save", models: models(), chosen: { ...wanted(), ...asked } });
  if (replaced) return;
  if (answer.problem) return showProblem(answer);
  const about = what === "lesson" ? wanted().topic ?? "conv" : `${state.model || "model"} ${what === "overview" ? "" : what}`;
  const name = about.trim().replace(/[^\w.-]+/g, "-").slice(0, 60);
  if (picture === "png") download(`${name}.png`, await asPixels(answer.text));
  else download(name + answer.suffix, new Blob([answer.text], { type: "application/octet-stream" }));
}

function download(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function asPixels(svg) {
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  await image.decode();
  const scale = Math.min(2, CANVAS / image.width, CANVAS / image.height);
  const canvas = element("canvas", { width: Math.floor(image.width * scale), height: Math.floor(image.height * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// --- asking and showing --------------------------------------------------------------------------------------------

let timer;
function later() {
  clearTimeout(timer);
  timer = setTimeout(refresh, TYPING);
}

const lines = (text) => (text ?? "").split("\n").map((line) => line.trim()).filter(Boolean);
const models = () => (state.view === "compare" ? [state.model, ...lines(state.chosen.others)] : [state.model]);

// Python's options alone, and the theme of the pictures.
function wanted() {
  const { others, ...chosen } = state.chosen;
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  return { ...chosen, theme: dark === "dark" ? "dark" : "light" };
}

async function refresh() {
  writeAddress();
  const view = state.view;
  const shown = view === "inspect" ? files.slice(0, 1).map((file) => file.name) : models();
  const reply = await ask({ view, models: shown, chosen: wanted() });
  if (reply.replaced || view !== state.view) return;
  const answer = reply.answer;
  if (answer.problem) return showProblem(answer);
  $("problem").hidden = true;
  $("model").removeAttribute("aria-invalid");
  document.title = answer.title ? `${answer.title} | vggscope` : "vggscope";
  show(answer);
  if (view === "overview") showLayers(answer.notation);
}

function showProblem({ problem, remedy }) {
  $("problem").replaceChildren(element("b", {}, problem), element("span", {}, remedy));
  $("problem").hidden = false;
  $("model").setAttribute("aria-invalid", "true");
  $("shown").classList.add("stale");
}

function show({ html, svg, page, command }) {
  const parts = [];
  if (svg) parts.push(picture(svg));
  if (html) parts.push(table(html));
  if (page) parts.push(frame(page));
  $("shown").replaceChildren(...parts);
  $("shown").classList.remove("stale");
  $("command").hidden = !command;
  $("command").querySelector("code").textContent = command ?? "";
}

function picture(svg) {
  const box = element("div", { class: "picture", role: "img", "aria-label": `Diagram of ${state.model}`, tabindex: "0" });
  box.innerHTML = svg;
  return box;
}

function table(html) {
  const box = element("div", { class: "table", role: "region", "aria-label": "Table", tabindex: "0" });
  box.attachShadow({ mode: "open" }).innerHTML = html;
  return box;
}

function frame(page) {
  const box = element("iframe", { title: "Interactive page", sandbox: "allow-scripts allow-downloads", srcdoc: page });
  return box;
}

function showLayers(notation) {
  $("layers").hidden = !notation;
  if (notation && document.activeElement !== $("notation")) $("notation").value = notation;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- what the reader does ------------------------------------------------------------------------------------------

function setModel(word) {
  state.model = word.replace(/\s+/g, " ");
  if ($("model").value !== state.model) $("model").value = state.model;
  if (state.view === "inspect") choose("overview");
  else later();
}

async function open(list) {
  const given = [...list].map((file) => (file.name === file.name.trim() ? file : new File([file], file.name.trim())));
  const read = await Promise.all(given.map((file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false)));
  const unread = given.filter((_, place) => !read[place]);
  if (unread.length) showProblem({ problem: `${unread[0].name} cannot be read`, remedy: "open the files in a folder, not the folder" });
  if (!given.length || unread.length) return;
  files = given;
  await ask({ files });
  const word = files.find((file) => /\.index\.json$/i.test(file.name)) ?? files[0];
  files = [word, ...files.filter((file) => file !== word)];
  // In a shell too, "-x.pth" is no option, and a file D is not the column.
  state.model = /^[^-].*\.|^\./.test(word.name) ? word.name : `./${word.name}`;
  $("model").value = state.model;
  choose(LAYERS_ALONE.test(word.name) ? "overview" : "inspect");
}

function listen() {
  $("ask").addEventListener("submit", (event) => event.preventDefault());
  $("model").addEventListener("input", () => setModel($("model").value));
  $("notation").addEventListener("input", () => setModel($("notation").value.trim()));
  for (const name of FIELDS) {
    const field = $("ask").elements[name];
    field.addEventListener("input", () => {
      state.chosen[name] = field.type === "checkbox" ? (field.checked ? "yes" : "") : field.value;
      later();
    });
  }
  for (const button of document.querySelectorAll("[data-model]")) button.addEventListener("click", () => setModel(button.dataset.model));
  $("file").addEventListener("change", () => {
    open($("file").files);
    $("file").value = ""; // so that the same file can be opened again after it changed
  });
  $("copy").addEventListener("click", copy);
  $("stop").addEventListener("click", stop);
  for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => { event.preventDefault(); $("drop").hidden = false; });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").hidden = true;
    open(event.dataTransfer.files);
  });
  addEventListener("hashchange", () => { readAddress(); fillForm(); choose(state.view); });
  for (const button of document.querySelectorAll("[data-theme-choice]")) button.addEventListener("click", () => setTheme(button.dataset.themeChoice));
}

// Without https a browser gives no clipboard: the command is then selected, to be copied by hand.
async function copy() {
  const code = $("command").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    status("Copied");
  } catch {
    getSelection().selectAllChildren(code);
    status("Selected: copy it with the keyboard");
  }
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  for (const button of document.querySelectorAll("[data-theme-choice]")) button.setAttribute("aria-pressed", String(button.dataset.themeChoice === theme));
  try {
    localStorage.setItem("theme", theme);
  } catch { /* a browser may forbid it */ }
  if (offered.version) refresh();
}

async function begin() {
  let theme = "";
  try {
    theme = localStorage.getItem("theme") ?? "";
  } catch { /* a browser may forbid it */ }
  startPython();
  readAddress();
  fillForm();
  buildTabs();
  listen();
  setTheme(theme);
  choose(state.view);
  offered = (await ask({ view: "start", models: [], chosen: {} })).answer;
  $("version").textContent = offered.version;
  $("words").replaceChildren(...offered.words.map((word) => element("option", { value: word })));
  $("ask").elements.head.append(...offered.head.map((word) => element("option", {}, word)));
  fillForm();
  buildControls();
  status("");
  keep();
}

// After the first answer: the files for a visit without a network, and the snapshot for a quick start.
async function keep() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register(here("service-worker.js"));
    await navigator.serviceWorker.ready;
  } catch {
    return; // a browser may forbid it: the next visit then loads everything again
  }
  const maker = startWorker("snapshot.js");
  maker.onmessage = ({ data }) => {
    maker.terminate();
    document.documentElement.dataset.snapshot = data;
  };
  maker.postMessage(VERSION);
}

// For the console: await vggscope.ask({view: "save", models: ["D"], chosen: {what: "overview", form: "json"}})
globalThis.vggscope = { ask, state, offered: () => offered, startedFromSnapshot: () => quick };
begin();
