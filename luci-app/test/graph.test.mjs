// The traffic of the last minutes.
import test from 'node:test';
import assert from 'node:assert/strict';
import { load } from './load.mjs';

const graph = load('ds4relay.graph');
const relay = (rx, tx, inside, outside) => ({
	name: 'home', up: true, counters: { rx_bytes: rx, tx_bytes: tx },
	forwards: [ { section: 'web', flows: { open: 1, in: { bytes: inside }, out: { bytes: outside } } }, { section: 'x' } ]
});

// Samples out of looks at the status: [ time, relay ].
const samples = (...looks) => looks.reduce((all, [ time, one ]) => graph.remember(all, one, time), []);
const tunnel = (one) => one.tunnel, web = (one) => one.forwards.web;

test('rates are what was counted in between', () => {
	const seen = samples([ 0, relay(0, 0, 0, 0) ], [ 5000, relay(5000, 10000, 500, 0) ]);

	assert.deepEqual(graph.rates(seen, tunnel), [ { from: 0, to: 5000, rates: [ 1000, 2000 ] } ]);
	assert.deepEqual(graph.rates(seen, web), [ { from: 0, to: 5000, rates: [ 100, 0 ] } ]);
	assert.deepEqual(graph.rates(seen, (one) => one.forwards.x), [], 'it has no counters');
	assert.deepEqual(graph.rates(samples([ 0, relay(0, 0) ]), tunnel), []);
});

test('a closed connection and a new tunnel are no traffic', () => {
	const seen = samples([ 0, relay(9000, 9000, 9000, 100) ], [ 5000, relay(0, 14000, 50, 600) ]);

	assert.deepEqual(graph.rates(seen, tunnel)[0].rates, [ 0, 1000 ]);
	assert.deepEqual(graph.rates(seen, web)[0].rates, [ 0, 100 ]);
});

test('what is older than the window is forgotten, and so is what comes from the future', () => {
	const looks = Array.from({ length: 100 }, (_, i) => [ i * 5000, relay(i, i, i, i) ]),
	      seen = samples(...looks);

	assert.equal(seen.length, 60);
	assert.equal(seen[59].time, 495000);
	assert.deepEqual(graph.remember(seen, relay(1, 1), 1000).map((one) => one.time), [ 1000 ], 'the clock was set');
	assert.equal(graph.remember(seen, relay(1, 1), 495000).length, 60, 'the same look, drawn again');
	assert.equal(graph.remember(seen, relay(1, 1), 496000).at(-1).time, 495000, 'a second look at once');
});

test('lines end at the right, and a long gap is an average', () => {
	const seen = samples([ 0, relay(0, 0) ], [ 5000, relay(5120, 0) ], [ 155000, relay(5120 + 76800, 0) ]),
	      found = graph.rates(seen, tunnel);

	assert.deepEqual(graph.points(found, 0, 155000, 1024), [ [ 483, 0 ], [ 500, 0 ], [ 500, 50 ], [ 1000, 50 ] ]);
});

test('the scale begins at 1 KiB/s and doubles', () => {
	for (const [ peak, top ] of [ [ 0, 1024 ], [ 1024, 1024 ], [ 1025, 2048 ], [ 3e6, 4194304 ] ])
		assert.equal(graph.scale(peak), top);
});
