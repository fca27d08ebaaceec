// Our catalogue beside LuCI's.
import test from 'node:test';
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { conflicts, read } from './catalogue.mjs';

const luci = fileURLToPath(new URL('fixtures/luci-base.de.po', import.meta.url));

test('where LuCI has a text of ours, both translate it in the same way', () => {
	assert.ok(read(luci).length > 10);
	assert.deepEqual(conflicts('de', luci), []);
});
