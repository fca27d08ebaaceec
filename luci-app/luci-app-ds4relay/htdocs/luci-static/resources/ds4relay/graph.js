'use strict';
'require baseclass';
'require ds4relay.model as model';
'require ds4relay.path as path';
'require ds4relay.words as words';

/*
 * Draws the traffic of the last minutes: of a relay's tunnel, and of its forwards. Each look at the status is a sample;
 * those of the window stay in the browser's session, so that a visit to another tab leaves no hole.
 */

const minutes = 5, window_ = minutes * 60000, key = 'ds4relay.graph';

/* Between samples further apart the rate is an average, and is drawn as one. */
const apart = 20000;

/* Looks closer together are one: a rate over a moment says nothing. */
const close = 2000;

/* How many forwards get a graph of their own: those with the most traffic. */
const most = 6;

/* What a sample has of a relay: time, bytes from clients and to clients of the tunnel, and of each forward. */
function sample(relay, time) {
	const forwards = {};

	for (const { section, flows } of relay.forwards)
		if (flows?.in && flows?.out)
			forwards[section] = [ flows.in.bytes, flows.out.bytes ];

	return { time, tunnel: [ relay.counters.rx_bytes, relay.counters.tx_bytes ], forwards };
}

/*
 * Rates in bytes per second out of samples: `[ { from, to, rates: [ in, out ] }, … ]`. The bytes of a forward are those
 * of its open connections, and become less when one ends; counters start anew with a tunnel. Neither is traffic.
 */
function rates(samples, pick) {
	const found = [];

	for (let i = 1; i < samples.length; i++) {
		const before = pick(samples[i - 1]), now = pick(samples[i]),
		      seconds = (samples[i].time - samples[i - 1].time) / 1000;

		if (before && now && seconds > 0)
			found.push({
				from: samples[i - 1].time, to: samples[i].time,
				rates: now.map((bytes, n) => Math.max(0, bytes - before[n]) / seconds)
			});
	}

	return found;
}

/* The upper end of a scale for rates up to the highest: its half is a round number too. */
function scale(highest) {
	let top = 1024;

	while (top < highest)
		top *= 2;

	return top;
}

/* The points of a line in a field of 1000 by 100, whose right side is now. */
function points(found, n, now, top) {
	const at = (time, rate) => [
		Math.round(1000 - (now - time) / window_ * 1000), Math.round(1000 - rate / top * 1000) / 10
	];

	return found.flatMap(({ from, to, rates: both }, i) => {
		const starts = (i == 0) || to - from > apart || found[i - 1].to != from;

		return starts ? [ at(from, both[n]), at(to, both[n]) ] : [ at(to, both[n]) ];
	});
}

function speed(bytes) {
	return '%1024.1mB/s'.format(Math.round(bytes));
}

/* A mark of the scale. LuCI begins a unit above its first value: 1024.0 KiB, and with a byte more 1.0 MiB. */
function mark(bytes) {
	return speed(bytes + 1);
}

/* A line and the area below it. */
function curve(found, n, now, top, style) {
	const line = points(found, n, now, top);

	if (!line.length)
		return [];

	const text = line.map((point) => point.join(',')).join(' '),
	      [ first ] = line[0],
	      [ last ] = line[line.length - 1];

	return [
		path.S('polygon', { 'class': style, points: first + ',100 ' + text + ' ' + last + ',100' }),
		path.S('polyline', { 'class': style, points: text })
	];
}

function draw(found, now, top, label) {
	return path.S('svg', {
		'class': 'ds4-graph', role: 'img', 'aria-label': label, viewBox: '0 0 1000 100', preserveAspectRatio: 'none'
	}, [
		...[ 25, 50, 75 ].map((y) => path.S('line', { x1: 0, x2: 1000, y1: y, y2: y })),
		...[ 1, 2, 3, 4 ].map((i) => path.S('line', { x1: 200 * i, x2: 200 * i, y1: 0, y2: 100 })),
		...curve(found, 1, now, top, 'ds4-out'),
		...curve(found, 0, now, top, 'ds4-in')
	]);
}

function peak(found) {
	return Math.max(0, ...found.flatMap((one) => one.rates));
}

function current(found) {
	return found.length ? found[found.length - 1].rates : [ 0, 0 ];
}

/* What a screen reader says in place of a graph. */
function sentence(name, found) {
	const [ from, to ] = current(found);

	return words.fill(_('%s: %s from clients, %s to clients; at most %s in the last %d minutes'), [
		name, speed(from), speed(to), speed(peak(found)), minutes
	]);
}

function legend(found) {
	const [ from, to ] = current(found);

	return [
		E('span', { 'class': 'ds4-key ds4-in' }, [ words.fill(_('From clients: %s'), [ speed(from) ]) ]),
		E('span', { 'class': 'ds4-key ds4-out' }, [ words.fill(_('To clients: %s'), [ speed(to) ]) ]),
		E('span', [ words.fill(_('At most: %s'), [ speed(peak(found)) ]) ])
	];
}

function renderTunnel(relay, samples, now) {
	const found = rates(samples, (one) => one.tunnel),
	      top = scale(peak(found));

	return E('div', { 'class': 'ds4-traffic' }, [
		E('div', { 'class': 'ds4-keys' }, legend(found)),
		E('div', { 'class': 'ds4-field' }, [
			draw(found, now, top, sentence(words.fill(_('Relay %s'), [ relay.name ]), found)),
			E('span', { 'class': 'ds4-top' }, [ mark(top) ]), E('span', { 'class': 'ds4-half' }, [ mark(top / 2) ])
		]),
		E('div', { 'class': 'ds4-axis' }, [
			E('span', [ words.fill(_('%d minutes ago'), [ minutes ]) ]), E('span', [ _('now') ])
		])
	]);
}

/* Small graphs of the forwards with traffic, all on one scale. */
function renderForwards(relay, samples, now) {
	const all = relay.forwards
		.map((forward) => {
			const found = rates(samples, (one) => one.forwards[forward.section]);

			return { forward, found, peak: peak(found) };
		})
		.filter((one) => one.peak > 0)
		.sort((a, b) => b.peak - a.peak)
		.slice(0, most);

	if (!all.length)
		return '';

	const top = scale(all[0].peak);

	return E('div', { 'class': 'ds4-small' }, all.map(({ forward, found }) => {
		const name = model.name(forward),
		      [ from, to ] = current(found);

		return E('div', [
			E('div', [ E('strong', [ name ]) ]),
			draw(found, now, top, sentence(name, found)),
			E('small', [ '↓ ' + speed(from) + ' · ↑ ' + speed(to) ])
		]);
	}));
}

function load() {
	try {
		return JSON.parse(window.sessionStorage.getItem(key)) ?? {};
	}
	catch {
		return {};
	}
}

function save(samples) {
	try {
		window.sessionStorage.setItem(key, JSON.stringify(samples));
	}
	catch {
		/* A full or forbidden storage: the graph starts anew with each visit. */
	}
}

return baseclass.extend({
	rates, scale, points,

	/* Adds a sample, and forgets those before the window. */
	remember(samples, relay, time) {
		const kept = samples.filter((one) => one.time > time - window_ && one.time <= time);

		return kept.some((one) => one.time > time - close) ? kept : kept.concat(sample(relay, time));
	},

	/* The graphs of a relay of the status that was answered at `time`. */
	render(relay, time) {
		if (!relay.up || !relay.counters)
			return '';

		const all = load(),
		      samples = this.remember(all[relay.name] ?? [], relay, time);

		save(Object.assign(all, { [relay.name]: samples }));

		return E('div', { 'class': 'ds4-panel' }, [
			renderTunnel(relay, samples, time), renderForwards(relay, samples, time)
		]);
	}
});
