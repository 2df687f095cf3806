// Memory over a step. Each moment is a line over the batch, so that any batch can be evaluated.

const GPUS = [0, 6, 8, 11, 12, 16, 24, 32, 40, 48, 80, 96, 141];

const TIMELINE_HEIGHT = 280;

const memory = { moments: [], totals: [], peak: 0, at: null };

// The moments of a step: for each kind of memory [fixed bytes, bytes per sample] that are alive.
function momentsOf(mode, optimizer, dtype) {
  const source = model().memory;
  const kinds = source.kinds.length;
  const alive = Array.from({ length: kinds }, () => [0, 0]);
  const moments = source.walks[`${mode}/${source.walkOf[dtype]}`].map(([event, layer, ...changes]) => {
    for (let at = 0; at < changes.length; at += 3) {
      const line = alive[changes[at]];
      alive[changes[at]] = [line[0] + changes[at + 1], line[1] + changes[at + 2]];
    }
    return { event: source.events[event], layer, alive: [...alive] };
  });
  const own = source.optimizers[`${mode}/${source.weightsOf[dtype]}`]?.[optimizer];
  return own ? moments.map((moment) => withOptimizer(moment, own, source.kinds)) : moments;
}

// Add an optimizer's memory: its states to every moment, its temporary tensors to those of its step.
function withOptimizer(moment, [states, taken, layer], kinds) {
  const stepping = moment.event === 'optimizer step';
  const more = { optimizer: states, temporary: stepping ? taken : 0 };
  return {
    event: moment.event,
    layer: stepping ? layer : moment.layer,
    alive: moment.alive.map(([fixed, perSample], kind) => [fixed + (more[kinds[kind]] ?? 0), perSample]),
  };
}

const at = ([fixed, perSample], batch) => fixed + perSample * batch;

const totalAt = (moment, batch) => moment.alive.reduce((total, line) => total + at(line, batch), 0);

// The largest batch whose peak fits: the least of the largest batches of all moments.
function largestBatch(moments, capacity) {
  let most = Infinity;
  for (const moment of moments) {
    const [fixed, slope] = moment.alive.reduce(([f, s], line) => [f + line[0], s + line[1]], [0, 0]);
    if (fixed + slope > capacity) return 0;
    if (slope) most = Math.min(most, Math.floor((capacity - fixed) / slope));
  }
  return most;
}

const setup = () => ({
  mode: find('#memory-mode').value,
  optimizer: find('#memory-optimizer').value,
  dtype: find('#memory-dtype').value,
  batch: clamp(Math.floor(Number(find('#memory-batch').value)) || 1, 1, 1e6),
});

function showMemory() {
  const { mode, optimizer, dtype, batch } = setup();
  find('#memory-optimizer').disabled = mode === 'inference';
  memory.moments = momentsOf(mode, optimizer, dtype);
  memory.totals = memory.moments.map((moment) => totalAt(moment, batch));
  const most = memory.totals.reduce((a, b) => Math.max(a, b), 0);
  memory.peak = memory.totals.indexOf(most);
  memory.at = null;
  answer(most, batch);
  const source = model().memory;
  find('#assumptions').replaceChildren(...source.restsOn[`${mode}/${optimizer}/${dtype}`].map((number) => el('li', {}, source.assumptions[number])));
  drawTimeline(batch);
  showMoment();
}

const eventText = (moment) => {
  const layer = moment.layer >= 0 ? nameOf(layerAt(moment.layer)) : '';
  return [moment.event, layer].filter(Boolean).join(' of ');
};

function answer(most, batch) {
  const gpu = Number(find('#memory-gpu').value) * 2 ** 30;
  const parts = ['Peak ', el('data', { id: 'peak', value: most }, bytesText(most)), ` for a batch of ${count(batch)}, at ${eventText(memory.moments[memory.peak])}.`];
  if (gpu) {
    const fits = largestBatch(memory.moments, gpu);
    parts.push(' ', el('data', { id: 'fits', value: fits }, fits ? `Up to ${count(fits)} fit` : 'Not one sample fits'), ` ${find('#memory-gpu').value} GiB, tensors alone.`);
  }
  find('#memory-answer').replaceChildren(...parts);
}

function drawTimeline(batch) {
  const { moments, totals } = memory;
  const gpu = Number(find('#memory-gpu').value) * 2 ** 30;
  const most = HEADROOM * Math.max(...totals, Math.min(gpu, 2 * Math.max(...totals))) || 1;
  const y = (value) => HEIGHT - HEIGHT * value / most;
  const content = [];
  const held = [];
  const below = moments.map(() => 0);
  model().memory.kinds.forEach((kind, place) => {
    const tops = moments.map((moment, x) => below[x] + at(moment.alive[place], batch));
    if (tops.some((top, x) => top > below[x])) {
      content.push(svg('path', { class: `kind ${kind}`, d: band(below.map(y), tops.map(y)) }));
      held.push([`kind ${kind}`, kind === 'input' ? 'input batch' : kind]);
    }
    tops.forEach((top, x) => { below[x] = top; });
  });
  content.push(svg('path', { class: 'own', id: 'own' }), svg('path', { class: 'peak', 'vector-effect': 'non-scaling-stroke', d: `M${memory.peak + 0.5} 0V${HEIGHT}` }));
  const fits = gpu && gpu <= most;
  if (fits) content.push(svg('path', { class: 'limit', 'vector-effect': 'non-scaling-stroke', d: `M0 ${y(gpu)}H${moments.length}` }));
  content.push(svg('path', { class: 'hand', id: 'hand', 'vector-effect': 'non-scaling-stroke' }));
  find('#timeline').replaceChildren(framed({
    width: Math.max(240, find('#timeline').clientWidth), height: TIMELINE_HEIGHT, columns: moments.length, unit: `bytes allocated, batch ${count(batch)}`,
    ticks: ticksOf(most, { bytes: true }), scaled: (value) => HEIGHT * value / most, text: compactBytes, groups: moments.map(({ event }) => event),
    legend: [...held, ...(fits ? [['limit', `memory of the GPU, ${find('#memory-gpu').value} GiB`]] : [])],
  }, content));
  find('#timeline').setAttribute('aria-valuemax', moments.length - 1);
  markTimeline();
}

function band(lower, upper) {
  const top = upper.map((y, x) => `L${x} ${y}H${x + 1}`).join('');
  const back = lower.map((_, x) => lower.length - 1 - x).map((x) => `L${x + 1} ${lower[x]}H${x}`).join('');
  return `M0 ${upper[0]}${top}${back}z`;
}

// Mark the moments of the chosen layer.
function markTimeline() {
  const own = find('#own');
  if (!own) return;
  own.setAttribute('d', memory.moments.map((moment, x) => (moment.layer === shown() ? `M${x} 0h1V${HEIGHT}h-1z` : '')).join(''));
}

function showMoment() {
  const { batch } = setup();
  const chosen = memory.at ?? memory.peak;
  const [moment, peak] = [memory.moments[chosen], memory.moments[memory.peak]];
  const text = `${eventText(moment)}: ${bytesText(memory.totals[chosen])}`;
  find('#moment').textContent = memory.at === null ? `At the peak: ${text}` : text;
  find('#timeline').setAttribute('aria-valuenow', chosen);
  find('#timeline').setAttribute('aria-valuetext', text);
  find('#hand').setAttribute('d', memory.at === null ? '' : `M${chosen + 0.5} 0V${HEIGHT}`);
  const rows = model().memory.kinds.map((kind, place) => el('tr', {},
    el('th', { scope: 'row' }, el('span', { class: `dot ${kind}`, 'aria-hidden': 'true' }), kind),
    el('td', { class: 'number' }, el('data', { value: at(peak.alive[place], batch), 'data-kind': kind }, bytesText(at(peak.alive[place], batch)))),
    el('td', { class: 'number', 'data-value': at(moment.alive[place], batch) }, bytesText(at(moment.alive[place], batch)))));
  find('#memory-kinds tbody').replaceChildren(...rows);
}

function moveHand(place) {
  memory.at = place;
  showMoment();
}

function fillChoices() {
  const fill = (id, values, chosen) => find(id).replaceChildren(...values.map(([value, word]) => el('option', { value, selected: value === chosen }, word)));
  const same = (values) => values.map((value) => [value, value]);
  const { memory: source, dtype } = data.models[0];
  fill('#memory-mode', same(source.modes), 'train');
  fill('#memory-optimizer', same(Object.keys(Object.values(source.optimizers)[0])), 'sgd-momentum');
  fill('#memory-dtype', same(Object.keys(source.walkOf)), dtype in source.walkOf ? dtype : 'float32');
  fill('#memory-gpu', GPUS.map((size) => [size, size ? `${size} GiB` : 'any']), 0);
}

function startMemory() {
  fillChoices();
  const draw = eachFrame(showMemory);
  find('#memory-form').addEventListener('submit', (event) => event.preventDefault());
  find('#memory-slide').addEventListener('input', () => {
    find('#memory-batch').value = Math.round(2 ** (Number(find('#memory-slide').value) / 10));
  });
  find('#memory-batch').addEventListener('input', () => { find('#memory-slide').value = 10 * Math.log2(setup().batch); });
  find('#memory-form').addEventListener('input', draw);
  listenToTimeline(find('#timeline'));
  on('model', showMemory);
  on('layer', markTimeline);
  onWidth(find('#timeline'), () => { drawTimeline(setup().batch); showMoment(); });
  showMemory();
}

function listenToTimeline(plot) {
  const placeAt = (event) => columnAt(plot, event, memory.moments.length);
  const chooseLayer = () => {
    const { layer } = memory.moments[memory.at ?? memory.peak];
    if (layer >= 0) select(layer);
  };
  plot.addEventListener('pointermove', eachFrame((event) => moveHand(placeAt(event))));
  plot.addEventListener('click', (event) => { moveHand(placeAt(event)); chooseLayer(); });
  plot.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 }[event.key];
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); chooseLayer(); }
    if (!by) return;
    event.preventDefault();
    moveHand(clamp((memory.at ?? memory.peak) + by, 0, memory.moments.length - 1));
  });
}
