// Menus in the user's language. The frontend translates the names of inputs by locales/, but not what a menu offers: the words for
// that stand there too, as `options` of an input. A workflow keeps the English word.
import { app } from '../../../scripts/app.js';

let nodes = {};                                         // {type: {inputs: {name: {options: {word: label}}}}}

app.registerExtension({
  name: 'RealPortrait.Menus',

  async init() {
    const locales = await (await app.api.fetchApi('/i18n')).json();
    nodes = locales[app.extensionManager.setting.get('Comfy.Locale')]?.nodeDefs ?? {};
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith('RealPortrait')) return;
    for (const widget of node.widgets ?? []) {
      const labels = nodes[node.comfyClass]?.inputs?.[widget.name]?.options;
      if (labels) widget.options.getOptionLabel = word => labels[word] ?? word ?? '';
    }
  },
});
