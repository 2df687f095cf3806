// The table of layers, with sorting, a filter, and bars for shares of the total.

const fieldSize = (place) => model().fields.layers[place].size;

const COLUMNS = [
  { key: 'place', title: 'Layer', value: (layer, place) => place, cell: nameCell },
  { key: 'op', title: 'Op', value: (layer) => layer.op, text: (layer) => layer.op },
  { key: 'out', title: 'Output', value: (layer) => product(layer.out), text: (layer) => times(layer.out), number: true },
  { key: 'params', title: 'Parameters', value: (layer) => layer.params, text: (layer) => count(layer.params), bar: true },
  { key: 'macs', title: 'MACs', value: (layer) => layer.macs, text: (layer) => shortCount(layer.macs), bar: true },
  { key: 'bytes', title: 'Activation', value: (layer) => layer.bytes, text: (layer) => bytesText(layer.bytes), bar: true },
  { key: 'field', title: 'Field', value: (layer, place) => fieldSize(place)?.[0] ?? null, text: (layer, place) => (fieldSize(place) ? pair(fieldSize(place)) : UNKNOWN), number: true },
  { key: 'rule', title: '(W−K+2P)/S+1', value: (layer) => layer.rule ?? '', text: (layer) => layer.rule ?? '', quiet: true },
  { key: 'in', title: 'Input', value: (layer) => product(layer.in), text: (layer) => times(layer.in), number: true },
];

const table = { rows: [], sorted: 'place', down: false };

function nameCell(layer) {
  const link = el('a', { href: `#${encodeURIComponent(layer.key)}` }, nameOf(layer));
  const path = layer.label ? el('span', { class: 'path' }, layer.name) : null;
  return el('th', { scope: 'row' }, el('span', { class: `dot ${layer.kind}`, 'aria-hidden': 'true' }), link, path);
}

function fillTable() {
  const layers = model().layers;
  const largest = Object.fromEntries(COLUMNS.filter((column) => column.bar).map((column) => [
    column.key, Math.max(1, ...layers.map((layer, place) => column.value(layer, place) ?? 0)),
  ]));
  table.rows = layers.map((layer, place) => {
    const row = el('tr', { 'data-place': place }, ...COLUMNS.map((column) => cellOf(column, layer, place, largest)));
    return { row, place, words: `${layer.label} ${layer.name} ${layer.op} ${layer.stage}`.toLowerCase() };
  });
  const { totals } = model();
  const sums = { params: count(totals.params), macs: shortCount(totals.macs), bytes: bytesText(totals.activationBytes) };
  const others = totals.other.map((other) => el('tr', {}, el('th', { scope: 'row' }, other.name), el('td', { colspan: 2, class: 'quiet' }, other.why), el('td', { class: 'number' }, count(other.params)), el('td', { colspan: 5 })));
  find('#layers tfoot').replaceChildren(...others, el('tr', {}, ...COLUMNS.map((column, at) => (
    at ? el('td', { class: 'number', 'data-column': column.key }, sums[column.key] ?? '') : el('th', { scope: 'row' }, 'total')))));
  sortTable();
  filterTable();
}

function cellOf(column, layer, place, largest) {
  if (column.cell) return column.cell(layer);
  const value = column.value(layer, place);
  const cell = el('td', { 'data-column': column.key, class: [column.number || column.bar ? 'number' : '', column.quiet ? 'quiet' : '', value === 0 ? 'zero' : ''].join(' ').trim() || null });
  if (column.bar && value) {
    const bar = el('span', { class: `bar ${layer.kind}`, 'aria-hidden': 'true' });
    bar.style.setProperty('--share', `${100 * value / largest[column.key]}%`);
    cell.append(bar);
  }
  cell.append(el('span', {}, column.text(layer, place)));
  return cell;
}

// The layers in the order and the choice of the table, with the fields of `summary --format csv`.
function layerRows() {
  const sides = (values) => values.join('x');
  const head = ['name', 'label', 'op', 'output_shape', 'rule', 'params', 'macs', 'activation_bytes', 'receptive_field'];
  const shownPlaces = findAll('#layers tbody tr').filter((row) => !row.hidden).map((row) => Number(row.dataset.place));
  const rows = shownPlaces.map((place) => {
    const { name, label, op, out, rule, params, macs, bytes } = layerAt(place);
    return [name, label, op, sides([1, ...out]), rule, params, macs, bytes, fieldSize(place) ? sides(fieldSize(place)) : ''];
  });
  return [head, ...rows];
}

function fillHead() {
  find('#layers thead tr').replaceChildren(...COLUMNS.map((column) => {
    const button = el('button', { type: 'button' }, column.title, el('span', { class: 'arrow', 'aria-hidden': 'true' }));
    button.addEventListener('click', () => {
      // Numbers are sorted from the largest first.
      table.down = table.sorted === column.key ? !table.down : Boolean(column.bar || column.number);
      table.sorted = column.key;
      sortTable();
    });
    return el('th', { scope: 'col', 'data-key': column.key, 'data-column': column.key, class: column.number || column.bar ? 'number' : null }, button);
  }));
}

function sortTable() {
  const column = COLUMNS.find((column) => column.key === table.sorted);
  const layers = model().layers;
  const value = ({ place }) => column.value(layers[place], place);
  const order = [...table.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
    const by = typeof x === 'string' ? x.localeCompare(y) : x - y;
    return (table.down ? -by : by) || a.place - b.place;
  });
  find('#layers tbody').replaceChildren(...order.map(({ row }) => row));
  findAll('#layers thead th').forEach((head) => {
    if (head.dataset.key === table.sorted) head.setAttribute('aria-sort', table.down ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  });
}

function filterTable() {
  const words = find('#filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  table.rows.forEach(({ row, words: own }) => { row.hidden = !words.every((word) => own.includes(word)); });
  const visible = table.rows.filter(({ row }) => !row.hidden).length;
  find('#shown').textContent = words.length ? `${count(visible)} of ${plural(table.rows.length, 'layer')}` : plural(table.rows.length, 'layer');
}

function markTable() {
  for (const { row, place } of table.rows) {
    if (place === state.layer) row.setAttribute('aria-current', 'true');
    else if (row.hasAttribute('aria-current')) row.removeAttribute('aria-current');
    row.classList.toggle('seen', place === shown());
  }
  if (state.peeked === null) showRow(table.rows[state.layer].row);
}

// Scroll within the table only, so that the page does not move.
function showRow(row) {
  const scroller = find('#table-section .scroll');
  const [around, own] = [scroller.getBoundingClientRect(), row.getBoundingClientRect()];
  const head = find('thead', scroller).getBoundingClientRect().height;
  if (own.top < around.top + head || own.bottom > around.bottom) scroller.scrollTop += own.top - around.top - head - around.height / 3;
}

function startTable() {
  fillHead();
  const body = find('#layers tbody');
  const placeOfRow = (target) => {
    const row = target.closest?.('tr[data-place]');
    return row ? Number(row.dataset.place) : null;
  };
  body.addEventListener('click', (event) => {
    if (event.target.closest('a')) event.preventDefault();
    if (placeOfRow(event.target) !== null) select(placeOfRow(event.target));
  });
  body.addEventListener('pointerover', (event) => { if (pointed(event)) peek(placeOfRow(event.target)); });
  body.addEventListener('pointerleave', () => peek(null));
  body.addEventListener('keydown', (event) => {
    const by = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
    let row = event.target.closest('tr');
    if (!by || !row) return;
    event.preventDefault();
    do row = row[by]; while (row?.hidden);
    if (!row) return;
    select(Number(row.dataset.place));
    find('a', row).focus();
  });
  find('#filter').addEventListener('input', filterTable);
  on('model', fillTable);
  on('layer', markTable);
  fillTable();
}
