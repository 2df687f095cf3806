// What is chosen: a model, a layer of it, a unit of its map. Whoever shows it listens; whoever changes it calls
// `select` or `peek`. The page's address keeps the choice.

const data = JSON.parse(find('#data').textContent);

const state = { model: 0, layer: null, peeked: null, unit: null };

const listeners = { model: [], layer: [], unit: [] };

const on = (what, listener) => listeners[what].push(listener);
const tell = (what) => listeners[what].forEach((listener) => listener());

const model = () => data.models[state.model];
const shown = () => state.peeked ?? state.layer;
const layerAt = (place) => model().layers[place];
const nameOf = (layer) => layer.label || layer.name;

function select(place, focus = true) {
  state.layer = place;
  state.peeked = null;
  state.unit = null;
  if (focus) keepInAddress();
  tell('layer');
}

// Rows that scroll away under a pointer that rests are not pointed at.
let resting = '';
const spot = (event) => `${event.screenX} ${event.screenY}`;
const pointed = (event) => spot(event) !== resting;
document.addEventListener('pointermove', (event) => { resting = spot(event); }, true);

const peek = eachFrame((place) => {
  if (state.peeked === place) return;
  state.peeked = place;
  state.unit = null;
  tell('layer');
});

function chooseUnit(unit) {
  state.unit = unit;
  tell('unit');
}

function chooseModel(place) {
  if (place === state.model) return;
  const before = state.layer === null ? null : layerAt(state.layer).key;
  state.model = place;
  state.peeked = null;
  state.unit = null;
  tell('model');
  const same = model().layers.findIndex((layer) => layer.key === before);
  select(same < 0 ? firstChoice() : same);
}

// A layer that has something to show: the last with a window over a map of several units.
function firstChoice() {
  const found = model().layers.findLastIndex((layer) => layer.window && layer.kind === 'conv' && Math.max(...layer.out.slice(1)) > 1);
  return found < 0 ? 0 : found;
}

function keepInAddress() {
  const parts = data.models.length > 1 ? [model().title, layerAt(state.layer).key] : [layerAt(state.layer).key];
  const hash = `#${parts.map(encodeURIComponent).join('/')}`;
  // A page within another page may not change its history; the choice holds all the same.
  try { history.replaceState(null, '', hash); } catch { /* as above */ }
}

// The address's choice, if it names one: #conv5_3, or #D/conv5_3 where there are several models.
function fromAddress() {
  let parts;
  try { parts = location.hash.slice(1).split('/').map(decodeURIComponent); } catch { return false; }
  if (data.models.length > 1 && parts.length > 1) {
    const place = data.models.findIndex((found) => found.title === parts[0]);
    if (place < 0) return false;
    if (place !== state.model) { state.model = place; tell('model'); }
  }
  const key = parts[parts.length - 1];
  const layer = model().layers.findIndex((found) => found.key === key || found.name === key);
  if (layer < 0) return false;
  select(layer, false);
  return true;
}

function step(by) {
  select(clamp(state.layer + by, 0, model().layers.length - 1));
}
