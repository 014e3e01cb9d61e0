// The pack's words in the user's language, all of them from locales/. The frontend finds names and tooltips there by itself, but not
// what a menu offers (`options` of an input); and frontend 1.32 forgets them when it loads its own file of that language.
// A workflow keeps the English words, except for the titles of our workflows' groups and nodes: the frontend has no other place for
// a translated one than the graph itself.
import { app } from '../../../scripts/app.js';

let nodes = {};                                         // {type: its entry in locales/LANGUAGE/nodeDefs.json}
let titles = {};                                        // {English: other}, of locales/LANGUAGE/main.json

const isOurs = type => String(type).startsWith('RealPortrait');

app.registerExtension({
  name: 'RealPortrait.Language',

  async init() {
    const language = app.extensionManager.setting.get('Comfy.Locale');
    if (language === 'en') return;
    const words = (await (await app.api.fetchApi('/i18n')).json())[language] ?? {};
    nodes = Object.fromEntries(Object.entries(words.nodeDefs ?? {}).filter(([type]) => isOurs(type)));
    titles = words.realportrait?.titles ?? {};
  },

  beforeConfigureGraph(graph) {
    if (!graph.nodes?.some(node => isOurs(node.type))) return;
    for (const item of [...graph.nodes, ...graph.groups ?? []]) {
      const [, number, title] = (item.title ?? '').match(/^(\d+ +)?(.*)$/s);
      if (titles[title]) item.title = (number ?? '') + titles[title];
    }
  },

  beforeRegisterNodeDef(_, definition) {
    const words = nodes[definition.name];
    if (!words) return;
    definition.display_name = words.display_name;
    definition.description = words.description;
    for (const [name, spec] of Object.values(definition.input).flatMap(group => Object.entries(group ?? {}))) {
      if (words.inputs[name]) spec[1] = { ...spec[1], tooltip: words.inputs[name].tooltip };
    }
    definition.output_tooltips = definition.output.map((_, i) => words.outputs[i]?.tooltip);
  },

  nodeCreated(node) {
    const words = nodes[node.comfyClass];
    if (!words) return;
    for (const input of node.inputs ?? []) input.localized_name = words.inputs[input.name]?.name ?? input.localized_name;
    for (const [i, output] of (node.outputs ?? []).entries()) output.localized_name = words.outputs[i]?.name ?? output.localized_name;
    for (const widget of node.widgets ?? []) {
      const input = words.inputs[widget.name];
      if (!input) continue;
      widget.label = input.name;
      if (input.options) widget.options.getOptionLabel = word => input.options[word] ?? word ?? '';
    }
  },
});
