// The view of a picture: it zooms by buttons, keys, Ctrl and wheel, or two fingers, and pans by scrolling and dragging.

const MOST_ZOOM = 8;
const DRAG = 4; // pixels that a mouse moves before a click becomes a drag

const SETTLING = 150; // milliseconds after the last step of a zoom, until the drawing is laid out at its new size

// `zoom`, `opening` and `laid` are pixels per unit of the drawing: now, when it was opened, and as it is laid out.
const view = { drawing: null, zoom: 1, opening: 1, laid: 1, settling: null, touched: false };

const pane = () => find('#pictures');
const drawingSize = () => [view.drawing.viewBox.baseVal.width, view.drawing.viewBox.baseVal.height];

// Show a drawing at a size at which it can be read; a wide one scrolls.
function openDrawing(drawing) {
  clearTimeout(view.settling);
  view.drawing = drawing;
  view.touched = false;
  openingZoom();
  drawMinimap();
}

function openingZoom() {
  const [width, height] = drawingSize();
  const room = pane().clientWidth;
  view.opening = view.drawing.dataset.zoom ? Number(view.drawing.dataset.zoom) : clamp(room / width, Math.max(1, 416 / width), Math.max(1.3, 864 / width));
  pane().style.height = `${Math.ceil(Math.min(view.opening * height + 4, Math.max(320, 0.8 * window.innerHeight)))}px`;
  resize(view.opening);
  settle();
}

// Scale the drawing as it is laid out, which is fast however many parts it has; its holder has the new size at once.
function resize(zoom) {
  const [width, height] = drawingSize();
  view.zoom = zoom;
  const holder = view.drawing.parentElement;
  [holder.style.width, holder.style.height] = [`${width * zoom}px`, `${height * zoom}px`];
  view.drawing.style.transform = `scale(${zoom / view.laid})`;
  clearTimeout(view.settling);
  view.settling = setTimeout(settle, SETTLING);
  find('#zoom-level').textContent = `${fixed(100 * zoom / view.opening, 0)}%`;
  markMinimap();
}

// Lay the drawing out at its size, so that it is sharp.
function settle() {
  const [width, height] = drawingSize();
  clearTimeout(view.settling);
  view.laid = view.zoom;
  const { style } = view.drawing;
  [style.width, style.height, style.transform] = [`${width * view.zoom}px`, `${height * view.zoom}px`, ''];
}

// Zoom so that the point of the drawing at a place on the screen stays there; left out, the centre of the view.
function zoomTo(zoom, x = null, y = null) {
  const around = pane().getBoundingClientRect();
  const [atX, atY] = [x ?? around.left + around.width / 2, y ?? around.top + around.height / 2];
  const before = view.drawing.getBoundingClientRect();
  const [shareX, shareY] = [(atX - before.left) / before.width, (atY - before.top) / before.height];
  view.touched = true;
  resize(clamp(zoom, 0.5 * Math.min(fitting(), view.opening), MOST_ZOOM));
  const after = view.drawing.getBoundingClientRect();
  pane().scrollLeft += after.left + shareX * after.width - atX;
  pane().scrollTop += after.top + shareY * after.height - atY;
}

function fitting() {
  const [width, height] = drawingSize();
  return Math.min((pane().clientWidth - 2) / width, (pane().clientHeight - 2) / height);
}

// Bring a part of the drawing to the centre, where it is not in sight.
function bringToSight(part, always = false) {
  const [around, own] = [pane().getBoundingClientRect(), part.getBoundingClientRect()];
  if (always || own.left < around.left || own.right > around.right) pane().scrollLeft += (own.left + own.right - around.left - around.right) / 2;
  if (always || own.top < around.top || own.bottom > around.bottom) pane().scrollTop += (own.top + own.bottom - around.top - around.bottom) / 2;
}

// The minimap: each part of the drawing as a rectangle, and a frame around what is in sight.
function drawMinimap() {
  const [width, height] = drawingSize();
  const map = svg('svg', { viewBox: `0 0 ${width} ${height}` });
  const toDrawing = view.drawing.getScreenCTM().inverse();
  for (const link of findAll('a', view.drawing)) {
    const { left, top, width: w, height: h } = link.getBoundingClientRect();
    const { x, y } = new DOMPoint(left, top).matrixTransform(toDrawing);
    const place = placeOf(link);
    map.append(svg('rect', { class: place >= 0 ? `fill ${layerAt(place).kind}` : 'fill other', x, y, width: w / view.zoom, height: h / view.zoom }));
  }
  map.append(svg('rect', { class: 'frame', 'vector-effect': 'non-scaling-stroke' }));
  const scale = Math.min(150 / width, 110 / height);
  [map.style.width, map.style.height] = [`${Math.max(12, scale * width)}px`, `${Math.max(12, scale * height)}px`];
  find('#minimap').replaceChildren(map);
  markMinimap();
}

function markMinimap() {
  const frame = find('#minimap .frame');
  if (!frame) return;
  const [width, height] = drawingSize();
  const { clientWidth, clientHeight, scrollLeft, scrollTop } = pane();
  find('#minimap').hidden = width * height * view.zoom ** 2 < 2 * clientWidth * clientHeight;
  const left = Math.max(0, (clientWidth - width * view.zoom) / 2);
  const sides = { x: (scrollLeft - left) / view.zoom, y: scrollTop / view.zoom, width: clientWidth / view.zoom, height: clientHeight / view.zoom };
  for (const [name, value] of Object.entries(sides)) frame.setAttribute(name, value);
}

function startMinimap() {
  const map = find('#minimap');
  const move = (event) => {
    const box = find('svg', map).getBoundingClientRect();
    const [width, height] = drawingSize();
    pane().scrollLeft = (event.clientX - box.left) / box.width * width * view.zoom - pane().clientWidth / 2;
    pane().scrollTop = (event.clientY - box.top) / box.height * height * view.zoom - pane().clientHeight / 2;
  };
  map.addEventListener('pointerdown', (event) => { map.setPointerCapture(event.pointerId); move(event); });
  map.addEventListener('pointermove', (event) => { if (map.hasPointerCapture(event.pointerId)) move(event); });
}

function startDragging() {
  let from = null;
  let dragged = false;
  pane().addEventListener('dragstart', (event) => event.preventDefault());
  pane().addEventListener('pointerdown', (event) => {
    dragged = false;
    // Fingers scroll natively.
    from = event.pointerType === 'mouse' && event.button === 0 ? [event.clientX, event.clientY, pane().scrollLeft, pane().scrollTop] : null;
  });
  pane().addEventListener('pointermove', (event) => {
    if (!from) return;
    const [x, y] = [event.clientX - from[0], event.clientY - from[1]];
    if (!dragged && Math.hypot(x, y) < DRAG) return;
    if (!dragged) pane().setPointerCapture(event.pointerId);
    dragged = true;
    pane().classList.add('dragged');
    [pane().scrollLeft, pane().scrollTop] = [from[2] - x, from[3] - y];
  });
  const stop = () => { from = null; pane().classList.remove('dragged'); };
  pane().addEventListener('pointerup', stop);
  pane().addEventListener('pointercancel', stop);
  // The click that ends a drag chooses nothing.
  pane().addEventListener('click', (event) => { if (dragged) { event.preventDefault(); event.stopImmediatePropagation(); } dragged = false; }, true);
}

function startPinching() {
  let start = null;
  const measure = ([a, b]) => ({ apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 });
  pane().addEventListener('touchstart', (event) => {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    start = { ...measure(event.touches), zoom: view.zoom };
  }, { passive: false });
  pane().addEventListener('touchmove', (event) => {
    if (!start || event.touches.length !== 2) return;
    event.preventDefault();
    const now = measure(event.touches);
    zoomTo(start.zoom * now.apart / start.apart, now.x, now.y);
    pane().scrollLeft -= now.x - start.x;
    pane().scrollTop -= now.y - start.y;
    [start.x, start.y] = [now.x, now.y];
  }, { passive: false });
  pane().addEventListener('touchend', () => { start = null; });
}

function startViewport() {
  const zoomBy = (factor) => zoomTo(view.zoom * factor);
  const fit = () => zoomTo(fitting());
  find('#zoom-in').addEventListener('click', () => zoomBy(1.25));
  find('#zoom-out').addEventListener('click', () => zoomBy(0.8));
  find('#zoom-fit').addEventListener('click', fit);
  pane().addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { '+': () => zoomBy(1.25), '=': () => zoomBy(1.25), '-': () => zoomBy(0.8), 0: fit }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  const wheeled = eachFrame((zoom, x, y) => zoomTo(zoom, x, y));
  let aim = null; // the zoom that the wheel has asked for since the last frame
  pane().addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    if (aim === null) requestAnimationFrame(() => { aim = null; });
    aim = (aim ?? view.zoom) * Math.exp(-clamp(pixels, -100, 100) * 0.004);
    wheeled(aim, event.clientX, event.clientY);
  }, { passive: false });
  pane().addEventListener('scroll', eachFrame(markMinimap), { passive: true });
  startMinimap();
  startDragging();
  startPinching();
}
