// What the pages have in common.
import test from 'node:test';
import assert from 'node:assert/strict';
import { load } from './load.mjs';

const E = (tag, attributes, children) => ({ tag, children: children ?? attributes });
const page = load('ds4relay.page', {}, { E });
const below = (sentences) => page.alert('error', 'title', sentences).children[1];

test('each line of a message is one in the page', () => {
	assert.deepEqual(below([ 'a.cfg:1: x\na.cfg:2: y' ]), below([ 'a.cfg:1: x', 'a.cfg:2: y' ]));
	assert.equal(below([ 'a.cfg:1: x\na.cfg:2: y' ]).children.length, 2);
	assert.equal(below([ 'x' ]).tag, 'p');
	assert.deepEqual(below(undefined).children, []);
});
