// Save what the page shows: pictures as SVG and PNG, tables as CSV. The page makes the files; it requests nothing.

const INHERITED = ['fill', 'fill-opacity', 'fill-rule', 'stroke', 'stroke-width', 'stroke-dasharray', 'font-family', 'font-size', 'font-weight', 'text-anchor'];
const OWN = { opacity: '1', 'vector-effect': 'none', 'stop-color': 'rgb(0, 0, 0)' };

const PNG_SCALE = 2;
const MOST_SIDE = 12000;
const MOST_PIXELS = 5e7;

const slug = (text) => text.replace(/[^\w.-]+/g, '-').replace(/^-+|-+$/g, '') || 'vggscope';

function save(blob, name) {
  const link = el('a', { href: URL.createObjectURL(blob), download: `${slug(model().title)}-${name}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Colours as every program reads them: color-mix computes to color(srgb ...).
function plainColour(value) {
  const parts = value.match(/^color\(srgb ([\d.e+-]+) ([\d.e+-]+) ([\d.e+-]+)(?: \/ ([\d.]+))?\)$/);
  if (!parts) return value;
  const [red, green, blue] = parts.slice(1, 4).map((part) => Math.round(255 * Number(part)));
  return parts[4] ? `rgba(${red}, ${green}, ${blue}, ${parts[4]})` : `rgb(${red}, ${green}, ${blue})`;
}

// Give the copy of an element the looks that the page's style sheet gives the element.
function dress(element, copy, above) {
  const style = getComputedStyle(element);
  const looks = {};
  for (const name of INHERITED) {
    looks[name] = plainColour(style.getPropertyValue(name));
    if (looks[name] !== above[name]) copy.setAttribute(name, looks[name]);
    else copy.removeAttribute(name);
  }
  for (const [name, usual] of Object.entries(OWN)) {
    const value = style.getPropertyValue(name);
    if (value !== usual) copy.setAttribute(name, plainColour(value));
    else if (name !== 'stop-color') copy.removeAttribute(name);
  }
  for (const name of ['class', 'style', 'tabindex', 'href', 'role', 'aria-current', 'aria-hidden', 'aria-expanded']) {
    if (name !== 'href' || copy.localName === 'a') copy.removeAttribute(name);
  }
  [...element.children].forEach((child, at) => dress(child, copy.children[at], looks));
}

// A drawing as a file of its own: with its looks, its background, and what it uses from elsewhere on the page.
function standalone(drawing) {
  const { x, y, width, height } = drawing.viewBox.baseVal;
  const copy = drawing.cloneNode(true);
  dress(drawing, copy, {});
  const box = drawing.getBoundingClientRect();
  const scale = drawing.classList.contains('chart-drawing') || !box.width ? 1 : Math.max(1, 400 / Math.max(width, height));
  copy.setAttribute('width', width * scale);
  copy.setAttribute('height', height * scale);
  copy.prepend(svg('rect', { x, y, width, height, fill: getComputedStyle(find('#diagram-section')).backgroundColor, stroke: 'none' }));
  if (find('use', copy)) copy.prepend(find('.defs defs').cloneNode(true), find('#scene').cloneNode(true));
  return { text: new XMLSerializer().serializeToString(copy), width: width * scale, height: height * scale };
}

function saveSvg(drawing, name) {
  save(new Blob([standalone(drawing).text], { type: 'image/svg+xml' }), `${name}.svg`);
}

function savePng(drawing, name) {
  const { text, width, height } = standalone(drawing);
  const scale = Math.min(PNG_SCALE, MOST_SIDE / Math.max(width, height), Math.sqrt(MOST_PIXELS / (width * height)));
  const image = new Image();
  image.onload = () => {
    const canvas = el('canvas', { width: Math.round(width * scale), height: Math.round(height * scale) });
    canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(blob, `${name}.png`));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
}

const saveButton = (what, form, run) => {
  const button = el('button', { type: 'button', class: 'save', 'aria-label': `Save ${what} as ${form}` }, form);
  button.addEventListener('click', run);
  return button;
};

// Buttons that save the drawing in a holder. `name` is that of the file.
const pictureButtons = (what, name, drawingOf) => el('span', { class: 'saves' },
  saveButton(what, 'SVG', () => saveSvg(drawingOf(), name)), saveButton(what, 'PNG', () => savePng(drawingOf(), name)));

// Text that a spreadsheet would take for a formula gets an apostrophe in front, as in the CSV of the commands.
function csvCell(value) {
  const text = typeof value === 'string' && /^\s*[=+\-@＝＋－＠]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value ?? '');
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csvOf = (rows) => rows.map((row) => `${row.map(csvCell).join(',')}\n`).join('');

// The rows of a table in the order and the choice in which it shows them, its numbers without units.
function tableRows(shownTable) {
  const cellValue = (cell) => cell.dataset.value ?? find('data', cell)?.value ?? cell.textContent.trim();
  return [...shownTable.rows].filter((row) => !row.hidden).map((row) => [...row.cells].flatMap((cell) => [cellValue(cell), ...Array(cell.colSpan - 1).fill('')]));
}

function saveCsv(rows, name) {
  save(new Blob([csvOf(rows)], { type: 'text/csv' }), `${name}.csv`);
}

const tableButton = (what, name, rowsOf) => saveButton(what, 'CSV', () => saveCsv(rowsOf(), name));

function startExports() {
  const figures = [['map', 'feature map'], ['image', 'receptive field'], ['seen', 'what the unit sees'], ['slide-in', 'window'], ['slide-lens', 'lens'], ['slide-out', 'output']];
  for (const [id, what] of figures) find(`#${id}`).after(pictureButtons(what, slug(what), () => find(`#${id} > svg`)));
  find('#diagram-tools').append(pictureButtons('the diagram', 'diagram', () => view.drawing));
  find('#timeline').after(pictureButtons('the timeline', 'memory', () => find('#timeline > svg')));
  find('#table-section .heading').append(tableButton('the layers', 'layers', layerRows));
  find('#memory-section details').before(el('p', {}, tableButton('the memory', 'memory', () => tableRows(find('#memory-kinds')))));
  if (find('.together svg')) find('.together').after(pictureButtons('the models side by side', 'models', () => find('.together svg')));
}
