// Writes fixtures/luci-base.de.po, of LuCI source trees. Usage: luci-base.mjs TREE…
import { writeFileSync } from 'node:fs';
import { shared } from './catalogue.mjs';

if (process.argv.length < 3)
	throw new Error('no LuCI source tree is given');

writeFileSync(new URL('fixtures/luci-base.de.po', import.meta.url), shared('de', process.argv.slice(2)));
