// The choice: a model, a layer, a unit of its map. Views listen to it; `select` and `peek` change it.
// The address of the page holds the choice.

const data = JSON.parse(find('#data').textContent);

// Rows that Python has packed as columns: [values], or [distinct values, the place of each row's].
function unpacked({ rows, columns }) {
  const read = Object.entries(columns).map(([key, [values, places]]) => [key, places ? (row) => values[places[row]] : (row) => values[row]]);
  return Array.from({ length: rows }, (_, row) => Object.fromEntries(read.map(([key, value]) => [key, value(row)])));
}

for (const model of data.models) {
  model.layers = unpacked(model.layers).map((layer) => ({ ...layer, key: layer.key ?? layer.name }));
  model.fields.layers = unpacked(model.fields.layers);
}

const state = { model: 0, layer: null, peeked: null, unit: null, image: 0 };

const listeners = { model: [], layer: [], unit: [], image: [] };

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

// A row that scrolls under a resting pointer does not count as pointed at.
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

function chooseImage(place) {
  state.image = place;
  tell('image');
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

// The layer that is chosen first: the last convolution whose output is larger than 1 x 1.
function firstChoice() {
  const place = model().layers.findLastIndex((layer) => layer.window && layer.kind === 'conv' && Math.max(...layer.out.slice(1)) > 1);
  return place < 0 ? 0 : place;
}

// The part of the address that names a layer of the chosen model.
function hashOf(layer) {
  const parts = data.models.length > 1 ? [model().title, layer.key] : [layer.key];
  return `#${parts.map(encodeURIComponent).join('/')}`;
}

function keepInAddress() {
  const hash = hashOf(layerAt(state.layer));
  // A page in a frame may not change its history; the choice holds all the same.
  try { history.replaceState(null, '', hash); } catch { /* as above */ }
}

// The choice that the address names, if any: #conv5_3, or #D/conv5_3 with several models.
function fromAddress() {
  let parts;
  try { parts = location.hash.slice(1).split('/').map(decodeURIComponent); } catch { return false; }
  if (data.models.length > 1 && parts.length > 1) {
    const place = data.models.findIndex((model) => model.title === parts[0]);
    if (place < 0) return false;
    if (place !== state.model) { state.model = place; tell('model'); }
  }
  const key = parts[parts.length - 1];
  const layer = model().layers.findIndex((layer) => layer.key === key || layer.name === key);
  if (layer < 0) return false;
  select(layer, false);
  return true;
}

function step(by) {
  select(clamp(state.layer + by, 0, model().layers.length - 1));
}
