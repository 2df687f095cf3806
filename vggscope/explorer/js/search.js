// Find a layer by its name, label or op: `/` goes to the field, the arrow keys choose, Enter shows the layer.

const MOST_FOUND = 12;

const search = { found: [], at: 0 };

// How well a layer answers the words: 0 is best, Infinity not at all.
function fitness(layer, words) {
  const names = [layer.label, layer.name, layer.key].filter(Boolean).map((name) => name.toLowerCase());
  const all = `${names.join(' ')} ${layer.op} ${layer.stage}`.toLowerCase();
  if (!words.every((word) => all.includes(word))) return Infinity;
  const text = words.join(' ');
  if (names.includes(text)) return 0;
  if (names.some((name) => name.startsWith(text))) return 1;
  return names.some((name) => name.includes(text)) ? 2 : 3;
}

function layersFound(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const ranked = model().layers.map((layer, place) => [fitness(layer, words), place]).filter(([rank]) => rank < Infinity);
  return ranked.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, place]) => place);
}

function showFound() {
  const field = find('#find');
  const all = layersFound(field.value);
  search.found = all.slice(0, MOST_FOUND);
  search.at = 0;
  const items = search.found.map((place, at) => {
    const layer = layerAt(place);
    const item = el('li', { role: 'option', id: `found-${at}`, 'data-place': place, 'aria-selected': 'false' },
      el('span', { class: `dot ${layer.kind}`, 'aria-hidden': 'true' }), el('b', {}, nameOf(layer)), layer.label ? el('span', { class: 'path' }, layer.name) : null,
      el('span', { class: 'quiet' }, ` ${layer.op}, ${times(layer.out)}`));
    return item;
  });
  const rest = all.length - search.found.length;
  const asked = field.value.trim() !== '';
  const note = !asked ? '' : !all.length ? `No layer is called ${field.value.trim()}` : rest ? `and ${plural(rest, 'other')}` : '';
  if (note) items.push(el('li', { role: 'option', 'aria-disabled': 'true', class: 'quiet' }, note));
  find('#found').replaceChildren(...items);
  find('#found').hidden = !asked;
  field.setAttribute('aria-expanded', String(asked));
  markFound();
}

function markFound() {
  findAll('#found [data-place]').forEach((item, at) => item.setAttribute('aria-selected', String(at === search.at)));
  if (search.found.length) find('#find').setAttribute('aria-activedescendant', `found-${search.at}`);
  else find('#find').removeAttribute('aria-activedescendant');
  find(`#found-${search.at}`)?.scrollIntoView({ block: 'nearest' });
}

function closeFound() {
  find('#found').hidden = true;
  find('#find').setAttribute('aria-expanded', 'false');
  find('#find').removeAttribute('aria-activedescendant');
}

function takeFound(place) {
  closeFound();
  find('#find').value = '';
  select(place);
  reveal(place);
}

function startSearch() {
  const field = find('#find');
  field.addEventListener('input', showFound);
  field.addEventListener('blur', closeFound);
  field.addEventListener('keydown', (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && search.found.length) {
      event.preventDefault();
      search.at = (search.at + by + search.found.length) % search.found.length;
      markFound();
    } else if (event.key === 'Enter' && search.found.length && field.value.trim()) {
      event.preventDefault();
      takeFound(search.found[search.at]);
    } else if (event.key === 'Escape') closeFound();
  });
  // The field keeps the focus while an item is pressed.
  find('#found').addEventListener('pointerdown', (event) => event.preventDefault());
  find('#found').addEventListener('click', (event) => {
    const item = event.target.closest('[data-place]');
    if (item) takeFound(Number(item.dataset.place));
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, textarea')) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
}
