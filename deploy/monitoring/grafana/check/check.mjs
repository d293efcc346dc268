// Writes check.ts beside itself, in which every dashboard is a literal that has to satisfy Grafana's own types: of a
// literal TypeScript refuses names that a type does not have, too.
// npm install && npm run check
import { readFileSync, writeFileSync } from 'node:fs';

const KINDS = { stat: 'Stat', timeseries: 'TimeSeries', bargauge: 'BarGauge', table: 'Table' };
const types = '@grafana/schema/dist/esm/raw/composable';
const show = (value) => JSON.stringify(value, null, 1);
const lines = [
  "import type { Dashboard, DataQuery, Panel, RowPanel } from '@grafana/schema';",
  ...Object.entries(KINDS).map(
    ([kind, name]) => `import type * as ${kind} from '${types}/${kind}/panelcfg/x/${name}PanelCfg_types.gen';`,
  ),
  // JSON has the values of an enumeration, not its names
  'type Plain<T> = T extends string ? `${T}` : T extends number ? number : T extends (infer U)[] ? Plain<U>[]',
  '  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;',
];
// what a query of Prometheus has on top, which is in no package of Grafana's types alone
lines.push(
  "type Query = DataQuery & { expr: string; legendFormat: string; editorMode: 'code'; range: boolean; instant: boolean;",
  "  format?: 'time_series' | 'table' | 'heatmap' };",
);
let count = 0;
const satisfies = (what, value, type) =>
  lines.push(`// ${what}`, `const it${++count} = ${show(value)} satisfies Plain<${type}>;`);

for (const path of process.argv.slice(2)) {
  const { panels, ...dashboard } = JSON.parse(readFileSync(path, 'utf8'));
  satisfies(path, dashboard, 'Partial<Dashboard>');
  for (const { targets, options, ...panel } of panels) {
    const name = `${path}: ${panel.title}`;
    if (panel.type === 'row') {
      satisfies(name, panel, 'RowPanel');
      continue;
    }
    if (!(panel.type in KINDS)) throw new Error(`${name}: a panel of type ${panel.type} has no types here`);
    const { custom, ...defaults } = panel.fieldConfig.defaults;
    satisfies(name, { ...panel, fieldConfig: { ...panel.fieldConfig, defaults } }, 'Panel');
    satisfies(name, options, `Partial<${panel.type}.Options>`);
    if (custom) satisfies(name, custom, `Partial<${panel.type}.FieldConfig>`);
    for (const target of targets) satisfies(name, target, 'Query');
  }
}
writeFileSync(new URL('check.ts', import.meta.url), `${lines.join('\n')}\n`);
