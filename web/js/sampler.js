// RealPortrait Sampler and Animate Long Video: widgets that a run would not use are greyed out.
import { app } from '../../../scripts/app.js';

const NODES = ['RealPortraitSampler', 'RealPortraitAnimateLong'];
const SET_BY_SPEED = ['steps', 'sampler_name', 'scheduler'];          // by any speed but 'exact'
const SET_BY_NO_STEPS = ['sampler_name', 'scheduler'];                // by steps 0

app.registerExtension({
  name: 'RealPortrait.Sampler',
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    for (const widget of node.widgets.filter(widget => SET_BY_SPEED.includes(widget.name))) {
      // Looked up whenever the widget is drawn, so that it is right however the values came about.
      Object.defineProperty(widget, 'disabled', { get: () => unused(node).includes(widget.name), set() {}, configurable: true });
    }
  },
});

/** Names of the widgets that the others overrule; a value that comes by a link is not known here, and overrules nothing. */
function unused(node) {
  const value = name => {
    const linked = node.inputs?.some(input => input.widget?.name === name && input.link != null);
    return linked ? undefined : node.widgets.find(widget => widget.name === name)?.value;
  };
  if (![undefined, 'exact'].includes(value('speed'))) return SET_BY_SPEED;
  return value('steps') === 0 ? SET_BY_NO_STEPS : [];
}
