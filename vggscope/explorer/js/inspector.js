// The numbers of the chosen layer, beside the views.

function fillInspector() {
  const { totals } = model();
  const place = shown();
  const layer = layerAt(place);
  const field = model().fields.layers[place];
  const [before, after] = [el('button', { type: 'button', 'aria-label': 'Layer before' }, '◀'), el('button', { type: 'button', 'aria-label': 'Layer after' }, '▶')];
  before.addEventListener('click', () => { step(-1); find('#inspector button').focus(); });
  after.addEventListener('click', () => { step(1); find('#inspector button:last-of-type').focus(); });
  before.disabled = place === 0;
  after.disabled = place === model().layers.length - 1;
  const items = [
    ['input', times(layer.in)],
    ['output', times(layer.out)],
    layer.rule ? ['rule', layer.rule] : null,
    ['parameters', layer.params === null ? UNKNOWN : layer.params ? `${count(layer.params)} (${share(layer.params, totals.params)})` : 'none'],
    ['MACs', layer.macs ? `${shortCount(layer.macs)} (${share(layer.macs, totals.macs)})` : count(layer.macs)],
    ['activation', layer.bytes ? bytesText(layer.bytes) : 'shares its input’s memory'],
    ['receptive field', field.size ? `${pair(field.size)} px${field.stride ? `, stride ${pair(field.stride)}` : ''}` : UNKNOWN],
  ].filter(Boolean);
  find('#inspector').replaceChildren(
    el('div', { class: 'heading' }, el('h2', { id: 'chosen' }, nameOf(layer)), el('span', { class: 'steps' }, before, after)),
    el('p', { class: 'quiet' }, el('span', { class: `dot ${layer.kind}`, 'aria-hidden': 'true' }), `${layer.op}${layer.label ? `, ${layer.name}` : ''}`),
    el('div', { class: 'thumb', id: 'thumb', 'aria-hidden': 'true' }),
    el('dl', { class: 'facts' }, ...facts(items)),
    readsFrom(layer),
    ...copyButton(layer),
  );
  drawImage(find('#thumb'), place, unitOf(place));
}

function readsFrom(layer) {
  const links = layer.inputs.filter((place) => place >= 0).map((place) => {
    const link = el('a', { href: `#${encodeURIComponent(layerAt(place).key)}` }, nameOf(layerAt(place)));
    link.addEventListener('click', (event) => { event.preventDefault(); select(place); });
    return link;
  });
  const parts = links.flatMap((link, at) => (at ? [', ', link] : [link]));
  return el('p', { class: 'quiet' }, 'reads ', ...(parts.length ? parts : ['the input']));
}

// Copies the address of the page with this layer chosen: nothing in a notebook's frame, where the page has no address.
function copyButton(layer) {
  if (location.protocol === 'about:') return [];
  const button = el('button', { type: 'button', id: 'copy-link' }, 'Copy link');
  button.addEventListener('click', async () => {
    button.textContent = await copyText(`${location.href.split('#')[0]}${hashOf(layer)}`) ? 'Copied' : 'Copy failed';
  });
  return [el('p', { class: 'buttons', role: 'status' }, button)];
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without permission for the clipboard, copy a selection instead.
    const field = el('textarea', { class: 'sr', 'aria-hidden': 'true' });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    return done;
  }
}

function startInspector() {
  on('layer', fillInspector);
  on('image', () => drawImage(find('#thumb'), shown(), unitOf(shown())));
  on('unit', () => drawImage(find('#thumb'), shown(), unitOf(shown())));
}
