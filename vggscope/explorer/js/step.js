// The most bytes alive in a step of a sequential network with a batch of one, as Python's analysis/memory simulates it.

// Tensors with reference counts; `most` is the largest number of bytes alive at once.
function newLog() {
  const tensors = [];
  const log = { total: 0, most: 0 };
  log.allocate = (size) => {
    tensors.push({ size, references: 1 });
    log.total += size;
    log.most = Math.max(log.most, log.total);
    return tensors.length - 1;
  };
  log.retain = (tensor) => { tensors[tensor].references += 1; };
  log.release = (tensor) => {
    tensors[tensor].references -= 1;
    if (!tensors[tensor].references) log.total -= tensors[tensor].size;
  };
  log.isShared = (tensor) => tensors[tensor].references > 1;
  return log;
}

const call = (inputs, output, size, more = {}) => ({ inputs, output, size, saves: [], extra: [], named: [], scratch: [], params: [], gradient: 'new', path: [], ...more });

// The calls of a forward pass; in training with those of the cross-entropy. Values have names.
function callsOf(rows, width, trains) {
  const calls = [];
  rows.forEach(({ layer, path, output, sizes }, place) => {
    const [before, own, size] = [place ? `v${place - 1}` : 'input', `v${place}`, product(output) * width];
    if (layer.kernels) return calls.push(...kernelCalls(layer, path, before, own, size, output, width));
    const idle = layer.idle && !trains;
    const saves = idle ? [] : [...(savesInput(layer, output) ? [before] : []), ...(layer.savesOutput ? [own] : [])];
    const extra = idle ? [] : [...(layer.extra ? [product(output) * layer.extra] : []), ...(trains ? Array(layer.statistics).fill(output[1] * Math.max(width, 4)) : [])];
    return calls.push(call([before], own, size, {
      path, place: layer.place, until: layer.until, shares: idle || !layer.allocates, saves, extra, named: [before], gradient: idle ? 'same' : layer.gradient, params: sizes.map((values) => values * width),
    }));
  });
  if (trains) calls.push(...lossCalls(calls[calls.length - 1], width, rows[rows.length - 1].output.length));
  return calls;
}

// For an output of one value torch takes the mean, whose backward needs no values.
const savesInput = (layer, output) => layer.savesInput && !(layer.form === 'adaptive' && layer.takes_mean && output.slice(2).every((side) => side === 1));

// torch writes some ops out in several kernels. Autograd takes their inputs last to first.
function kernelCalls({ kernels, place, until }, path, before, own, size, output, width) {
  const names = [before];
  return kernels.map((kernel, at) => {
    const name = at === kernels.length - 1 ? own : `${own}#${at + 1}`;
    const inputs = kernel.inputs.map((place) => names[place]);
    const named = [...kernel.inputs, ...kernel.holds].map((place) => names[place]);
    names.push(name);
    const bytes = size + kernel.more * product([1, ...output.slice(2)]) * width;
    const ending = name === own ? { until } : {};
    return call(inputs, name, bytes, { path, place, ...ending, saves: kernel.keeps.map((place) => inputs[place]), named, scratch: kernel.scratch, gradient: kernel.same ? 'same' : 'new', lastFirst: true });
  });
}

const lossCalls = ({ output: logits, size }, width) => [
  call([logits], 'log-softmax', size, { saves: ['log-softmax'] }),
  call(['log-softmax'], 'loss', width, { saves: ['log-softmax'], extra: [width], named: [logits] }),
];

// For each value the call after which no Python variable names it: where tracing found it, else the last one that reads
// it, or the last of a module that it was passed to. The last value is returned.
function lastReads(calls) {
  const last = new Map();
  const computed = new Map();
  const frames = [];
  const leave = (path, position) => {
    let inside = 0;
    while (inside < Math.min(frames.length, path.length) && frames[inside].part === path[inside]) inside += 1;
    while (frames.length > inside) frames.pop().values.forEach((name) => last.set(name, position));
  };
  calls.forEach((each, position) => {
    leave(each.path, position - 1);
    each.path.slice(frames.length).forEach((part) => frames.push({ part, start: position, values: new Set() }));
    computed.set(each.output, position);
    last.set(each.output, position);
    [...each.inputs, ...each.named].filter((name) => computed.has(name)).forEach((name) => {
      last.set(name, position);
      frames.filter(({ start }) => computed.get(name) < start).forEach(({ values }) => values.add(name));
    });
  });
  leave([], calls.length - 1);
  const ends = new Map(calls.map(({ place }, position) => [place, position]));
  calls.filter(({ until }) => ends.has(until ?? null)).forEach(({ output, until }) => last.set(output, ends.get(until)));
  last.delete(calls[calls.length - 1].output);
  return last;
}

// A step with SGD and momentum, or a forward pass without gradients: the input, the weights and buffers, and in training
// the labels, the gradients and the momentum are counted.
function stepPeak(rows, input, width, trains) {
  const log = newLog();
  const step = { log, trains, calls: callsOf(rows, width, trains), values: new Map(), sizes: new Map(), saved: new Map(), differentiable: new Set() };
  for (const { layer, sizes } of rows) {
    for (const values of sizes) log.allocate(values * width * (trains ? 2 : 1));
    if (layer.buffers) log.allocate(layer.buffers * layer.features * width + layer.counters * 8);
  }
  step.values.set('input', log.allocate(product(input) * width));
  step.sizes.set('input', product(input) * width);
  if (trains) log.allocate(product(rows[rows.length - 1].output) / rows[rows.length - 1].output[1] * 8);
  forward(step);
  if (trains) backward(step);
  return log.most;
}

function forward({ log, trains, calls, values, sizes, saved, differentiable }) {
  const unnamed = new Map();
  lastReads(calls).forEach((position, name) => unnamed.set(position, [...(unnamed.get(position) ?? []), name]));
  calls.forEach((each, position) => {
    sizes.set(each.output, each.size);
    if (each.shares) {
      values.set(each.output, values.get(each.inputs[0]));
      log.retain(values.get(each.output));
    } else values.set(each.output, log.allocate(each.size));
    const extra = each.extra.map((size) => log.allocate(size));
    if (trains && each.gradient !== 'none' && (each.params.length || each.inputs.some((name) => differentiable.has(name)))) {
      differentiable.add(each.output);
      const kept = each.saves.map((name) => values.get(name));
      kept.forEach(log.retain);
      saved.set(position, [...kept, ...extra]);
    } else extra.forEach(log.release);
    (unnamed.get(position) ?? []).forEach((name) => log.release(values.get(name)));
  });
}

function backward({ log, calls, sizes, saved, differentiable }) {
  if (!differentiable.has('loss')) return;
  const one = log.allocate(sizes.get('loss'));
  log.retain(one);
  const gradients = new Map([['loss', { tensor: one, size: sizes.get('loss') }]]);
  [...saved.keys()].sort((a, b) => b - a).forEach((position) => {
    const each = calls[position];
    const gradient = gradients.get(each.output);
    gradients.delete(each.output);
    const targets = each.inputs.map((name, at) => [at, name]).filter(([, name]) => differentiable.has(name));
    if (each.lastFirst) targets.reverse();
    const made = targets.map(([at, name]) => [name, inputGradient(log, each, at, gradient, sizes.get(name))]);
    each.params.forEach((size) => log.allocate(size));
    log.release(gradient.tensor);
    saved.get(position).forEach(log.release);
    if (each.lastFirst) made.reverse();
    made.flatMap(([name, own]) => accumulate(log, gradients, name, own)).forEach(log.release);
  });
  log.release(one);
}

function inputGradient(log, each, at, gradient, size) {
  if (each.gradient === 'same' && size === each.size) {
    log.retain(gradient.tensor);
    return { tensor: gradient.tensor, size };
  }
  const scratch = Array.from({ length: each.scratch[at] ?? 0 }, () => log.allocate(each.size));
  const tensor = log.allocate(size);
  scratch.forEach(log.release);
  return { tensor, size };
}

// Add a gradient to that of a value; the tensors that are no longer needed come back.
function accumulate(log, gradients, name, gradient) {
  const before = gradients.get(name);
  if (!before) {
    gradients.set(name, gradient);
    return [];
  }
  if (log.isShared(before.tensor)) {
    gradients.set(name, { tensor: log.allocate(before.size), size: before.size });
    log.release(before.tensor);
  }
  return [gradient.tensor];
}
