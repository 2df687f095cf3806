// Start Python: from the snapshot that an earlier visit left in this browser, or anew.
import createModule from "./pyodide.asm.mjs";
import { loadPyodide } from "./pyodide.mjs";

const PACKAGES = "/packages";
const REFERENCES = "/references";

export const here = (name) => new URL(name, import.meta.url).href;

export async function startPython(version) {
  const archives = ["python.zip", "references.zip"].map(load);
  const snapshot = await storedSnapshot(version).catch(() => undefined);
  const quick = snapshot && (await fromSnapshot(snapshot).catch(() => undefined));
  const python = quick || (await loadPyodide());
  const [code, references] = await Promise.all(archives);
  install(python, code);
  python.unpackArchive(references, "zip", { extractDir: REFERENCES });
  python.runPython(`import os; os.environ["VGGSCOPE_LIBRARIES"] = "${REFERENCES}"; import bridge`);
  return { python, how: quick ? "snapshot" : "anew" };
}

// A snapshot holds no files: they are laid there again, and Python knows the folder already.
function install(python, code) {
  python.unpackArchive(code, "zip", { extractDir: PACKAGES });
  python.runPython(`import sys; "${PACKAGES}" in sys.path or sys.path.insert(0, "${PACKAGES}")`);
}

const fromSnapshot = (snapshot) => loadPyodide({ _loadSnapshot: snapshot, createPyodideModule: withRoomFor(snapshot) });

// Pyodide copies a snapshot into the memory that Python starts with, which may be smaller.
const withRoomFor = (snapshot) => async (settings) => {
  const instantiate = settings.instantiateWasm;
  settings.instantiateWasm = (imports, use) =>
    instantiate(imports, (instance, module) => {
      const { memory } = instance.exports;
      const pages = Math.ceil((snapshot.length - memory.buffer.byteLength) / 65536);
      if (pages > 0) memory.grow(pages);
      use(instance, module);
    });
  return createModule(settings);
};

// The memory of a Python that has answered each view once. It is kept beside the files of this version of the site.
export async function storeSnapshot(version) {
  const code = await load("python.zip");
  const python = await loadPyodide({ _makeSnapshot: true });
  install(python, code);
  python.runPython("import bridge, gc; bridge.warm_up(); gc.collect()");
  const snapshot = python.makeMemorySnapshot();
  if (!(await caches.has(cacheName(version)))) return; // another version of the site came meanwhile
  const cache = await caches.open(cacheName(version));
  await cache.put(here("snapshot.bin"), new Response(snapshot));
}

export async function storedSnapshot(version) {
  const stored = await caches.match(here("snapshot.bin"), { cacheName: cacheName(version) });
  return stored && new Uint8Array(await stored.arrayBuffer());
}

export const cacheName = (version) => `vggscope ${here("./")} ${version}`;

async function load(name) {
  const answer = await fetch(here(name));
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status})`);
  return new Uint8Array(await answer.arrayBuffer());
}
