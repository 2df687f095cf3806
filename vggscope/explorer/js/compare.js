// The models in one table, then each comparison with its differences.

const TOTALS = [
  { title: 'Parameters', value: ({ totals }) => totals.params, text: count },
  { title: 'MACs', value: ({ totals }) => totals.macs, text: (value) => shortCount(value) },
  { title: 'Activations', value: ({ totals }) => totals.activationBytes, text: bytesText },
  { title: 'Inference peak', value: ({ totals }) => totals.inferencePeak, text: bytesText },
  { title: 'Training peak', value: ({ totals }) => totals.trainingPeak, text: bytesText },
];

const EFFECTS = { none: 'no effect on this input', training_only: 'acts in training only', shape: 'other shapes', function: 'another function' };

function fillTotals() {
  if (data.models.length < 2) return;
  const most = TOTALS.map((total) => Math.max(1, ...data.models.map((model) => total.value(model) ?? 0)));
  const rows = data.models.map((model, place) => {
    const button = el('button', { type: 'button', class: 'plain' }, model.title);
    button.addEventListener('click', () => chooseModel(place));
    return el('tr', { 'data-model': place }, el('th', { scope: 'row' }, button), ...TOTALS.map((total, column) => totalCell(total, model, most[column])));
  });
  const head = el('tr', {}, el('th', { scope: 'col' }, 'Model'), ...TOTALS.map(({ title }) => el('th', { scope: 'col', class: 'number' }, title)));
  const whole = el('table', { class: 'small' }, el('thead', {}, head), el('tbody', {}, ...rows));
  find('#compare-totals').replaceChildren(el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Totals of the models' }, whole),
    tableButton('the totals', 'totals', () => tableRows(whole)));
}

function totalCell(total, model, most) {
  const value = total.value(model);
  const bar = el('span', { class: 'bar conv', 'aria-hidden': 'true' });
  bar.style.setProperty('--share', `${100 * (value ?? 0) / most}%`);
  return el('td', { class: 'number', 'data-value': value ?? '' }, bar, el('span', {}, total.text(value)));
}

function fillDiffs() {
  find('#diffs').replaceChildren(...model().diffs.map(diffOf));
}

function diffOf(diff) {
  const changed = diff.differences.filter(({ kind }) => kind !== 'renamed');
  const renamed = diff.differences.length - changed.length;
  return el('article', { class: 'diff' },
    el('h3', {}, `${diff.model} against ${diff.reference}`, ' ', el('span', { class: `verdict ${diff.verdict}` }, diff.verdict)),
    el('p', { class: 'quiet' }, `${count(diff.params.ours)} parameters, the reference has ${count(diff.params.reference)}.`),
    ...diff.notes.map((note) => el('p', { class: 'quiet' }, `Note: ${note}`)),
    el('ul', { class: 'differences' }, ...changed.map(differenceOf), renamed ? el('li', {}, `${plural(renamed, 'layer')} called otherwise`) : null),
    rowsOf(diff));
}

function differenceOf(difference) {
  const place = model().layers.findIndex((layer) => layer.name === difference.ours);
  const text = el('span', {}, difference.message);
  const link = place >= 0 ? el('a', { href: `#${encodeURIComponent(layerAt(place).key)}` }, 'show') : null;
  link?.addEventListener('click', (event) => { event.preventDefault(); select(place); });
  const { consequences, follows } = difference;
  const also = follows.length > 1 ? `with it: ${follows[0]}, and ${count(follows.length - 1)} more` : follows.map((text) => `with it: ${text}`)[0];
  const more = [consequences.join('; '), also].filter(Boolean);
  return el('li', {}, el('span', { class: `effect ${difference.effect}` }, difference.known ? EFFECTS[difference.effect] ?? difference.effect : 'may be another function'), ' ', text, ' ', link,
    more.length ? el('ul', {}, ...more.map((text) => el('li', { class: 'quiet' }, text))) : null);
}

const SIGNS = { '=': 'alike', '~': 'changed', '+': 'only here', '-': 'only in the reference', '!': 'fails here', '?': 'not reached' };

function rowsOf(diff) {
  const rows = diff.rows.map((row) => el('tr', { class: `row-${Object.keys(SIGNS).indexOf(row.sign)}` },
    el('td', {}, el('span', { 'aria-hidden': 'true' }, row.sign), el('span', { class: 'sr' }, SIGNS[row.sign] ?? '')), el('td', {}, row.ours), el('td', {}, row.reference)));
  const head = el('tr', {}, el('th', { scope: 'col' }, el('span', { class: 'sr' }, 'how they stand')), el('th', { scope: 'col' }, diff.model), el('th', { scope: 'col' }, diff.reference));
  const whole = el('table', { class: 'small sides' }, el('thead', {}, head), el('tbody', {}, ...rows));
  return el('details', {}, el('summary', {}, 'Side by side'), tableButton('the comparison', 'comparison', () => sideRows(diff)),
    el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `${diff.model} and ${diff.reference} side by side` }, whole));
}

const sideRows = (diff) => [['difference', diff.model, diff.reference], ...diff.rows.map((row) => [SIGNS[row.sign] ?? '', row.ours, row.reference])];

function markTotals() {
  findAll('#compare-totals tr[data-model]').forEach((row) => {
    if (Number(row.dataset.model) === state.model) row.setAttribute('aria-current', 'true');
    else row.removeAttribute('aria-current');
  });
}

function startCompare() {
  if (!find('#diffs')) return;
  fillTotals();
  const show = () => { fillDiffs(); markTotals(); };
  on('model', show);
  show();
}
