// Python in a worker, so that the page never waits for it. Messages are {id, view, models, chosen} or {id, files}.
import { instance } from "./viz.mjs";
import { startPython } from "./python.js";

const FILES = "/files";
const waiting = new Map(); // the newest request of each view
let mounted = false;
let working = false;
let ready;

self.onmessage = ({ data }) => {
  if (data.snapshot !== undefined) ready = start(data.snapshot);
  else enqueue(data);
};

async function start(version) {
  const [{ python, how }, graphviz] = await Promise.all([startPython(version), instance()]);
  self.postMessage({ started: how });
  const layout = python.pyimport("pygraphviz");
  layout.render = (source, format) => graphviz.renderString(source, { format });
  layout.__graphviz_version__ = graphviz.graphvizVersion;
  return { python, answer: python.pyimport("bridge").answer };
}

// A request replaces one of the same view that still waits: who types quickly wants the last answer alone.
function enqueue(request) {
  const key = request.files ? "files" : request.view;
  const replaced = waiting.get(key);
  if (replaced) self.postMessage({ id: replaced.id, replaced: true });
  waiting.delete(key);
  waiting.set(key, request);
  if (!working) setTimeout(work);
  working = true;
}

async function work() {
  let engine;
  try {
    engine = await ready;
  } catch (error) {
    self.postMessage({ failed: String(error.message ?? error).split("\n").slice(-2).join(" ") });
    return;
  }
  const [key, request] = waiting.entries().next().value;
  waiting.delete(key);
  const reply = { id: request.id, ...respond(engine, request) };
  self.postMessage(reply);
  if (reply.ended) return; // the page starts another worker
  working = waiting.size > 0;
  if (working) setTimeout(work); // lets newer messages in
}

function respond({ python, answer }, request) {
  try {
    if (request.files) return { names: mount(python, request.files) };
    return { answer: JSON.parse(answer(JSON.stringify(request))) };
  } catch (error) {
    // Whatever vggscope raises on purpose is an answer; this is a defect of it, or memory or the stack ran out, after
    // which Python answers nothing more.
    const line = String(error.message ?? error).trim().split("\n").pop();
    const remedy = "it was started anew; if this model is no broken file, please report it";
    return { answer: { problem: `Python failed: ${line}`, remedy }, ended: true };
  }
}

// The browser hands Python the parts of a file that it reads, so that a large file takes no memory.
function mount(python, files) {
  const { FS } = python;
  if (mounted) {
    FS.chdir("/");
    FS.unmount(FILES);
  } else FS.mkdir(FILES);
  FS.mount(FS.filesystems.WORKERFS, { files }, FILES);
  mounted = true;
  FS.chdir(FILES);
  return files.map((file) => file.name);
}
