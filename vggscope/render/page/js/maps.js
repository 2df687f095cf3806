// What the weights make of the image.

function startMaps() {
  if (!find('#maps')) return;
}
