// Change a sequential network: its input, the fields of a layer, or leave a layer out. The figures follow.

// The fields of each form that a reader changes. A field of two sides gets one number for both.
const EDITED = {
  conv: { kernel: 'kernel_size', stride: 'stride', padding: 'padding', width: 'out_channels' },
  pool: { kernel: 'kernel_size', stride: 'stride', padding: 'padding' },
  adaptive: { width: 'output_size' },
  fc: { width: 'out_features' },
};

const LEAST = { padding: 0 };
const MOST_FIELD = 65536;

const EDIT_TOTALS = [
  ['Parameters', 'params', count], ['MACs', 'macs', (value) => shortCount(value)], ['Weights', 'paramBytes', bytesText],
  ['Activations, batch 1', 'activationBytes', bytesText], ['Inference peak, batch 1', 'inferencePeak', bytesText],
  ['Training peak, batch 1, SGD with momentum', 'trainingPeak', bytesText],
];

// For each model the reader's changes: `changes` by place, `dropped` places, `input`, `adapt`.
const edits = new Map();

const freshEdit = () => ({ changes: {}, dropped: [], input: [...model().input], adapt: true });

function edit() {
  if (!edits.has(state.model)) edits.set(state.model, freshEdit());
  return edits.get(state.model);
}

const layerNames = () => model().layers.map(({ name }) => name);

function evaluated({ changes, dropped, input, adapt }) {
  const { layers, width } = model().edit;
  return evaluateChain(changedLayers(layers, layerNames(), { changes, dropped }), input, { width, adapt });
}

// The peaks of the page's data, where the rules of a chain give the network's own: variables of a user's own forward may
// keep tensors longer.
function knownPeaks() {
  const own = evaluated(freshEdit()).totals;
  return new Set(['inferencePeak', 'trainingPeak'].filter((key) => own?.[key] === model().totals[key]));
}

const oneNumber = (value) => (Array.isArray(value) ? value[0] ?? '' : value);

function fieldInput(place, kind, name) {
  const { layers } = model().edit;
  const field = EDITED[layers[place].form]?.[kind];
  if (!field) return null;
  const own = layers[place][field];
  const input = el('input', {
    type: 'number', min: LEAST[kind] ?? 1, max: MOST_FIELD, value: oneNumber(edit().changes[place]?.[field] ?? own), 'data-place': place, 'data-field': field,
    'aria-label': `${kind === 'width' ? (layers[place].form === 'conv' ? 'channels' : layers[place].form === 'fc' ? 'units' : 'output size') : kind} of ${name}`,
  });
  return input;
}

function editRow(layer, place) {
  const name = nameOf(layer);
  const { form } = model().edit.layers[place];
  // Without a flatten nothing after it would be the same kind of layer.
  const drop = form === 'flatten' ? null : el('input', { type: 'checkbox', 'data-drop': place, 'aria-label': `leave out ${name}`, checked: edit().dropped.includes(place) });
  const link = el('a', { href: `#${encodeURIComponent(layer.key)}` }, name);
  link.addEventListener('click', (event) => { event.preventDefault(); select(place); });
  return el('tr', { 'data-edit': place },
    el('th', { scope: 'row' }, el('span', { class: `dot ${layer.kind}`, 'aria-hidden': 'true' }), link, el('span', { class: 'path' }, layer.op)),
    ...['kernel', 'stride', 'padding', 'width'].map((kind) => el('td', {}, fieldInput(place, kind, name))), el('td', {}, drop),
    ...['output', 'field', 'params', 'macs', 'bytes'].map((figure) => el('td', { class: 'number', 'data-figure': figure })));
}

function fillEdit() {
  const { why } = model().edit;
  find('#edit-body').hidden = Boolean(why);
  find('#edit-why').hidden = !why;
  find('#edit-why').textContent = why ?? '';
  find('#edit-count').textContent = '';
  if (why) return;
  const { input, adapt } = edit();
  ['#edit-channels', '#edit-height', '#edit-width'].forEach((id, axis) => { find(id).value = input[axis]; });
  find('#edit-adapt').checked = adapt;
  find('#edit-layers tbody').replaceChildren(...model().layers.map(editRow));
  showEdit();
}

const FIGURES = {
  output: [({ output }) => output.slice(1), times], field: [({ field }) => field, (field) => (field ? pair(field) : UNKNOWN)],
  params: [({ params }) => params, count], macs: [({ macs }) => macs, (value) => shortCount(value)], bytes: [({ bytes }) => bytes, bytesText],
};

function showEdit() {
  const [before, after] = [evaluated(freshEdit()), evaluated(edit())];
  const changed = new Map(after.rows.map((row) => [row.layer.place, row]));
  model().layers.forEach((layer, place) => showEditRow(place, before.rows[place], changed.get(place)));
  const last = after.rows[after.rows.length - 1];
  const broken = after.broken ? `${nameOf(layerAt(last.layer.place))}: ${last.error}.` : '';
  find('#edit-error').textContent = broken;
  const number = Object.values(edit().changes).filter((fields) => Object.keys(fields).length).length + edit().dropped.length + (edit().input.join() === model().input.join() ? 0 : 1);
  find('#edit-count').textContent = number ? plural(number, 'change') : 'no change yet';
  showEditTotals(before, after);
}

function showEditRow(place, before, after) {
  const row = find(`#edit-layers [data-edit="${place}"]`);
  const isDropped = edit().dropped.includes(place);
  row.classList.toggle('dropped', isDropped);
  row.classList.toggle('broken', Boolean(after?.error));
  row.classList.toggle('unreached', !after && !isDropped);
  for (const [figure, [value, text]] of Object.entries(FIGURES)) {
    const cell = find(`[data-figure="${figure}"]`, row);
    if (!after || after.error) {
      cell.textContent = after?.error && figure === 'output' ? 'does not fit' : '';
      cell.classList.remove('changed');
      continue;
    }
    cell.textContent = text(value(after));
    cell.classList.toggle('changed', String(value(after)) !== String(value(before)));
  }
}

function showEditTotals(before, after) {
  const peaks = knownPeaks();
  const rows = EDIT_TOTALS.filter(([, key]) => !key.endsWith('Peak') || peaks.has(key)).map(([title, key, text]) => {
    const [was, is] = [before.totals[key], after.totals?.[key] ?? null];
    const factor = is === null || !was ? '' : is === was ? '' : `× ${significant(is / was)}`;
    return el('tr', {}, el('th', { scope: 'row' }, title), el('td', { class: 'number', 'data-value': was }, text(was)),
      el('td', { class: `number${is === was ? '' : ' changed'}`, 'data-value': is ?? '', 'data-total': key }, text(is)), el('td', { class: 'number' }, factor));
  });
  find('#edit-totals tbody').replaceChildren(...rows);
}

function changeField(input) {
  const place = Number(input.dataset.place);
  const own = model().edit.layers[place][input.dataset.field];
  const value = Math.round(Number(input.value));
  const fields = { ...edit().changes[place] };
  delete fields[input.dataset.field];
  if (input.value !== '' && value >= Number(input.min) && value !== oneNumber(own)) fields[input.dataset.field] = Array.isArray(own) ? own.map(() => value) : value;
  edit().changes[place] = fields;
}

function changeInput() {
  const sides = ['#edit-channels', '#edit-height', '#edit-width'].map((id) => Math.round(Number(find(id).value)));
  if (sides.every((side) => side >= 1 && side <= 4096)) edit().input = sides;
}

function layerEdits() {
  const { rows } = evaluated(edit());
  const head = ['name', 'label', 'op', 'output_shape', 'rule', 'params', 'macs', 'activation_bytes', 'receptive_field'];
  return [head, ...rows.map(({ layer, output, rule, params, macs, bytes, field, error }) => {
    const { name, label, op } = layerAt(layer.place);
    return error ? [name, label, op, error] : [name, label, op, output.join('x'), rule, params, macs, bytes, field?.join('x') ?? ''];
  })];
}

function startEdit() {
  const draw = eachFrame(showEdit);
  find('#edit-controls').addEventListener('input', () => { changeInput(); edit().adapt = find('#edit-adapt').checked; draw(); });
  find('#edit-layers').addEventListener('input', ({ target }) => {
    if (target.dataset.drop) {
      const place = Number(target.dataset.drop);
      edit().dropped = target.checked ? [...edit().dropped, place] : edit().dropped.filter((other) => other !== place);
    } else changeField(target);
    draw();
  });
  find('#edit-reset').addEventListener('click', () => { edits.delete(state.model); fillEdit(); });
  find('#edit-controls').append(tableButton('the changed layers', 'changed', layerEdits));
  on('model', fillEdit);
  fillEdit();
}
