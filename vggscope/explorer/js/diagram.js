// The diagrams. One is visible at a time; its links are the layers.

const pictures = { style: '', links: new Map(), stepped: [], parts: [] };

const STAGES = 'blocks';
const MODULES = 'modules'; // the picture that the page draws itself

function picturesOf() {
  return findAll('#pictures .picture').filter((picture) => Number(picture.dataset.model) === state.model);
}

const visiblePicture = () => picturesOf().find((picture) => picture.dataset.style === pictures.style);

// Where the stages are too large for a page, or would be cut off at a readable size, the page opens with the modules, which
// fit any width.
function firstStyle(own) {
  if (own[0].dataset.style !== STAGES) return MODULES;
  const drawing = find('svg', own[0]);
  const isWide = drawing && drawing.viewBox.baseVal.width > 1.3 * pane().clientWidth;
  return isWide && pane().clientWidth < 560 ? MODULES : own[0].dataset.style;
}

function showPicture() {
  const own = picturesOf();
  if (!visiblePicture()) pictures.style = firstStyle(own);
  const mark = segments(find('#styles'), own.map((picture) => [picture.dataset.style, picture.dataset.word]), (style) => {
    pictures.style = style;
    showPicture();
    markPicture();
  });
  mark(pictures.style);
  findAll('#pictures .picture').forEach((picture) => { picture.hidden = picture !== visiblePicture(); });
  find('#folds').hidden = pictures.style !== MODULES;
  if (pictures.style === MODULES) drawModules(visiblePicture(), pane().clientWidth);
  pictures.parts = pictures.style === MODULES ? moduleParts() : model().parts[pictures.style];
  const links = findAll('a', visiblePicture());
  pictures.stepped = links.map((link) => [link, placeOf(link)]).filter(([link, place]) => place >= 0 || link.dataset.group);
  pictures.links = new Map(links.map((link) => [keyOf(link), link]));
  links.forEach((link) => link.setAttribute('tabindex', '-1'));
  openDrawing(find('svg', visiblePicture()));
}

// Draw the modules anew where one was opened or closed; the view stays.
function redrawModules() {
  const { scrollTop } = pane();
  showPicture();
  markPicture();
  pane().scrollTop = scrollTop;
}

const keyOf = (link) => link.dataset.group ?? decodeURIComponent(link.getAttribute('href').slice(1));

function placeOf(link) {
  if (link.dataset.group) return -1;
  const key = keyOf(link);
  const own = model().layers.findIndex((layer, place) => layer.key === key && pictures.parts[place] === key);
  return own >= 0 ? own : pictures.parts.indexOf(key);
}

const linkOf = (place) => (place === null ? undefined : pictures.links.get(pictures.parts[place]));

function markPicture() {
  const [chosen, seen] = [linkOf(state.layer), linkOf(shown())];
  for (const link of pictures.links.values()) {
    link.classList.toggle('chosen', link === chosen);
    link.classList.toggle('seen', link === seen);
    if (link === chosen) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
    link.setAttribute('tabindex', link === chosen ? '0' : '-1');
  }
  if (chosen && state.peeked === null) bringToSight(chosen);
}

// Show a layer in the picture: open the modules around it, and enlarge what is too small to read.
function reveal(place) {
  if (pictures.style === MODULES && openAround(place)) redrawModules();
  const link = linkOf(place);
  if (!link) return;
  if (view.zoom < 0.75 * view.opening) zoomTo(view.opening);
  bringToSight(link, true);
  link.focus({ preventScroll: true });
  pane().scrollIntoView({ block: 'nearest' });
}

function toggle(id) {
  toggleModule(id);
  redrawModules();
  pictures.links.get(id)?.focus({ preventScroll: true });
}

function stepLinks(event) {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const link = event.target.closest?.('a');
  const group = link?.dataset.group;
  if (group && (event.key === 'Enter' || event.key === ' ')) {
    event.preventDefault();
    return toggle(group);
  }
  const at = pictures.stepped.findIndex(([own]) => own === link);
  if (!by || at < 0) return undefined;
  event.preventDefault();
  const open = link.getAttribute('aria-expanded') === 'true';
  if (group && (event.key === 'ArrowLeft' ? open : event.key === 'ArrowRight' && !open)) return toggle(group);
  const [next, place] = pictures.stepped[clamp(at + by, 0, pictures.stepped.length - 1)];
  if (place >= 0) select(place);
  else bringToSight(next);
  return next.focus({ preventScroll: true });
}

function startDiagram() {
  const holder = pane();
  const shownOf = (event) => event.target.closest?.('a');
  data.models.forEach((_, place) => holder.append(el('div', { class: 'picture', 'data-model': place, 'data-style': MODULES, 'data-word': 'modules', hidden: true })));
  startViewport();
  holder.addEventListener('click', (event) => {
    const link = shownOf(event);
    if (!link) return;
    event.preventDefault();
    if (link.dataset.group) toggle(link.dataset.group);
    else if (placeOf(link) >= 0) select(placeOf(link));
  });
  holder.addEventListener('pointerover', (event) => {
    if (!pointed(event)) return;
    const link = shownOf(event);
    peek(link && placeOf(link) >= 0 ? placeOf(link) : null);
  });
  holder.addEventListener('pointerleave', () => peek(null));
  holder.addEventListener('keydown', stepLinks);
  for (const [id, closed] of [['#collapse-all', true], ['#expand-all', false]]) {
    find(id).addEventListener('click', () => {
      foldAll(closed);
      redrawModules();
      bringToSight(linkOf(state.layer), true);
    });
  }
  onWidth(holder, () => {
    if (pictures.style === MODULES) redrawModules();
    else if (!view.touched) openingZoom();
    else markMinimap();
  });
  startSearch();
  on('model', showPicture);
  on('layer', markPicture);
  showPicture();
}
