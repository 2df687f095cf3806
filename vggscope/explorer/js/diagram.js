// The diagrams. One is visible at a time; its links are the layers.

const pictures = { style: '', links: new Map(), stepped: [] };

function pictureOf(style) {
  return findAll('#pictures .picture').find((picture) => Number(picture.dataset.model) === state.model && picture.dataset.style === style);
}

function showPicture() {
  const own = findAll('#pictures .picture').filter((picture) => Number(picture.dataset.model) === state.model);
  if (!pictureOf(pictures.style)) pictures.style = own.length ? own[0].dataset.style : '';
  const mark = segments(find('#styles'), own.map((picture) => [picture.dataset.style, picture.dataset.word]), (style) => {
    pictures.style = style;
    showPicture();
    markPicture();
  });
  mark(pictures.style);
  findAll('#pictures .picture').forEach((picture) => { picture.hidden = picture !== pictureOf(pictures.style); });
  find('#no-picture').hidden = own.length > 0;
  find('#styles').hidden = own.length < 2;
  if (own.length) keepReadable(find('svg', pictureOf(pictures.style)));
  const links = own.length ? findAll('a', pictureOf(pictures.style)) : [];
  pictures.stepped = links.map((link) => [link, placeOf(link)]).filter(([, place]) => place >= 0);
  pictures.links = new Map(links.map((link) => [keyOf(link), link]));
  links.forEach((link) => link.setAttribute('tabindex', '-1'));
}

// A wide picture scrolls; scaled to the page it would be too small to read.
function keepReadable(drawing) {
  const { width } = drawing.viewBox.baseVal;
  drawing.style.minWidth = `${Math.max(416, width)}px`;
  drawing.style.maxWidth = `${Math.max(864, 1.3 * width)}px`;
}

// Scroll within the picture, sideways only, so that the page does not move.
function showLink(link) {
  const scroller = find('#pictures');
  const [around, own] = [scroller.getBoundingClientRect(), link.getBoundingClientRect()];
  if (own.left < around.left || own.right > around.right) scroller.scrollLeft += (own.left + own.right - around.left - around.right) / 2;
}

const keyOf = (link) => decodeURIComponent(link.getAttribute('href').slice(1));

function placeOf(link) {
  const parts = model().parts[pictures.style];
  const key = keyOf(link);
  const own = model().layers.findIndex((layer, place) => layer.key === key && parts[place] === key);
  return own >= 0 ? own : parts.indexOf(key);
}

function markPicture() {
  const parts = model().parts[pictures.style];
  if (!parts) return;
  const at = (place) => (place === null ? undefined : pictures.links.get(parts[place]));
  const [chosen, seen] = [at(state.layer), at(shown())];
  for (const link of pictures.links.values()) {
    link.classList.toggle('chosen', link === chosen);
    link.classList.toggle('seen', link === seen);
    if (link === chosen) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
    link.setAttribute('tabindex', link === chosen ? '0' : '-1');
  }
  if (chosen && state.peeked === null) showLink(chosen);
}

function startDiagram() {
  const holder = find('#pictures');
  const linkOf = (event) => event.target.closest?.('a');
  holder.addEventListener('click', (event) => {
    const link = linkOf(event);
    if (!link) return;
    event.preventDefault();
    if (placeOf(link) >= 0) select(placeOf(link));
  });
  holder.addEventListener('pointerover', (event) => {
    if (!pointed(event)) return;
    const link = linkOf(event);
    peek(link && placeOf(link) >= 0 ? placeOf(link) : null);
  });
  holder.addEventListener('pointerleave', () => peek(null));
  holder.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = pictures.stepped.findIndex(([link]) => link === linkOf(event));
    if (!by || at < 0) return;
    event.preventDefault();
    const [link, place] = pictures.stepped[clamp(at + by, 0, pictures.stepped.length - 1)];
    select(place);
    link.focus();
  });
  on('model', showPicture);
  on('layer', markPicture);
  showPicture();
}
