// Load Portrait, Load Driving Video and Stream Driving Video: an example of the pack is shown on the node as a file of the input folder is.
import { api } from '../../../scripts/api.js';
import { app } from '../../../scripts/app.js';

const PREFIX = 'example: ', SERVED = '/extensions/realportrait_examples/';
const SHOW = {
  RealPortraitLoadPortrait: ['image', showPicture],
  RealPortraitLoadDrivingVideo: ['file', showVideo],
  RealPortraitStreamDrivingVideo: ['file', showVideo],
};

app.registerExtension({
  name: 'RealPortrait.Examples',
  nodeCreated(node) {
    const [name, show] = SHOW[node.comfyClass] ?? [];
    const widget = node.widgets?.find(widget => widget.name === name);
    if (!widget) return;
    const update = () => {
      const value = String(widget.value);
      const url = api.fileURL(SERVED + encodeURIComponent(value.slice(PREFIX.length)));
      if (value.startsWith(PREFIX)) show(node, url, () => widget.value === value);
    };
    const chosen = widget.callback;
    widget.callback = function (...given) {
      const answer = chosen?.apply(this, given);
      update();
      return answer;
    };
    requestAnimationFrame(update);                      // when a loaded graph has put its values into the widgets
  },
});

function showPicture(node, url, isStillChosen) {
  const image = new Image();
  image.onload = () => {
    if (!isStillChosen()) return;
    node.imageIndex = null;
    node.imgs = [image];
    node.setDirtyCanvas(true, true);
  };
  image.src = url;
}

/** In the widget that the host itself makes for a video. */
function showVideo(node, url) {
  const video = Object.assign(document.createElement('video'), { src: url, controls: true, loop: true, muted: true, autoplay: true });
  if (!node.videoContainer) {
    node.videoContainer = document.createElement('div');
    node.videoContainer.classList.add('comfy-img-preview');
    const widget = node.addDOMWidget('video-preview', 'video', node.videoContainer, { canvasOnly: true, hideOnZoom: false });
    widget.serialize = false;
    widget.computeLayoutSize = () => ({ minHeight: 256, minWidth: 256 });
  }
  node.videoContainer.replaceChildren(video);
  node.setDirtyCanvas(true, true);
}
