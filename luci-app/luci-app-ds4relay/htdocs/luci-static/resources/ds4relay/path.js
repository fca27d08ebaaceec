'use strict';
'require baseclass';
'require ds4relay.model as model';
'require ds4relay.words as words';

/* Draws the way of a packet: client, VPS, tunnel, router, host. Colours come from the style sheet. */

const ns = 'http://www.w3.org/2000/svg';

/* A node of SVG; text is text. */
function S(name, attributes, children) {
	const node = document.createElementNS(ns, name);

	for (const key in attributes)
		if (attributes[key] != null)
			node.setAttribute(key, attributes[key]);

	for (const child of children ?? [])
		node.append(child);

	return node;
}

/* Line drawings on a field of 32 by 32. */
const icons = {
	client: [ 'M4 7h24v15H4z', 'M11 27h10', 'M16 22v5' ],
	vps: [ 'M6 4h20v7H6z', 'M6 12.5h20v7H6z', 'M6 21h20v7H6z', 'M10 7.5h.1M10 16h.1M10 24.5h.1' ],
	router: [ 'M4 17h24v9H4z', 'M9 21.5h.1M14 21.5h.1', 'M23 17V9', 'M18.5 8a6 6 0 0 1 9 0' ],
	host: [ 'M4 15L16 5l12 10', 'M7 13v14h18V13', 'M13 27v-8h6v8' ]
};

function icon(name, x, y, state) {
	return S('g', { transform: 'translate(' + (x - 26) + ' ' + (y - 26) + ')', 'class': 'ds4-node ds4-' + state }, [
		S('rect', { width: 52, height: 52, rx: 10 }),
		S('g', { transform: 'translate(10 10)' }, icons[name].map((d) => S('path', { d }))),
		mark(state, 48, 4)
	]);
}

/* A sign beside the colour, for who does not see colours. */
function mark(state, x, y) {
	const signs = { good: 'M-4 0l3 3 5-6', warning: 'M0-4v5M0 4v.1', bad: 'M-3.5-3.5l7 7M3.5-3.5l-7 7' };

	if (!signs[state])
		return S('g');

	return S('g', { 'class': 'ds4-mark', transform: 'translate(' + x + ' ' + y + ')' }, [
		S('circle', { r: 9 }), S('path', { d: signs[state] })
	]);
}

function text(x, y, style, anchor, words_) {
	return S('text', { x, y, 'class': style, 'text-anchor': anchor }, [ words_ ]);
}

function lines(x, y, anchor, name, addresses) {
	return [ text(x, y, 'ds4-name', anchor, name) ].concat(
		addresses.map((address, i) => text(x, y + 17 + 15 * i, 'ds4-address', anchor, address)));
}

function line(from, to, state, busy) {
	return S('line', {
		x1: from[0], y1: from[1], x2: to[0], y2: to[1],
		'class': 'ds4-line ds4-' + state + (busy ? ' ds4-busy' : '')
	});
}

/* The tunnel is a pipe: its walls, and what runs in it. */
function pipe(from, to, state, busy) {
	const [ across, along ] = (from[1] == to[1]) ? [ [ 0, 9 ], to[0] - from[0] ] : [ [ 9, 0 ], to[1] - from[1] ];
	const at = (point, sign) => [ point[0] + sign * across[0], point[1] + sign * across[1] ];

	return S('g', { 'class': 'ds4-pipe ds4-' + state, 'data-length': along }, [
		line(at(from, -1), at(to, -1), state), line(at(from, 1), at(to, 1), state),
		S('g', { 'class': 'ds4-core' }, [ line(from, to, state, busy) ])
	]);
}

/* The hosts by address and name; `absent` marks those that do not answer. */
function hostNames(relay, names, absent) {
	const missing = model.missing(relay),
	      named = (ip) => (names[ip] ? ip + ' (' + names[ip] + ')' : ip);

	return model.hosts(relay).map((ip) => (missing.includes(ip) ? absent(named(ip)) : named(ip)));
}

/* The same for the drawing, which has no room for words. */
function hostLines(relay, names, count) {
	return shorten(hostNames(relay, names, (host) => '✕ ' + host), count);
}

function shorten(list, count) {
	return (list.length > count)
		? list.slice(0, count - 1).concat(words.fill(_('and %d more'), [ list.length - count + 1 ]))
		: list;
}

/* What a screen reader says in place of the drawing. */
function sentence(relay, state, names) {
	const how = {
		good: _('works'), warning: _('needs attention'), bad: _('does not work'), unknown: _('nothing known yet')
	};

	return words.fill(_('Client, then VPS %s (%s), tunnel %s (%s), router %s (%s), host %s'), [
		relay.ipaddr, [ how[state.vps], turn(relay) ].filter((word) => word).join(', '),
		relay.device, how[state.tunnel], relay.local || '–', how[state.router],
		hostNames(relay, names, (host) => host + ' – ' + _('no answer')).join(', ') || '–'
	]);
}

function speed(bytes) {
	return '%1024.1mB/s'.format(Math.round(bytes));
}

/* The traffic of the tunnel, in words. */
function traffic(relay, rates) {
	const c = relay.counters;

	if (!c)
		return [];

	return [
		'↓ %1024.1mB'.format(c.rx_bytes) + (rates ? ' · ' + speed(rates.rx) : ''),
		'↑ %1024.1mB'.format(c.tx_bytes) + (rates ? ' · ' + speed(rates.tx) : '')
	];
}

/* What the tunnel is, above its drawing. */
function tunnelName(relay) {
	return (relay.transport == 'wireguard') ? _('Tunnel (WireGuard)') : _('Tunnel (IPv4 in IPv6)');
}

/* The addresses of the VPS; WireGuard may use the public one too. */
function vpsLines(relay) {
	return [ ...new Set([ relay.ipaddr, relay.peer, turn(relay) ]) ].filter((entry) => entry);
}

/* By which of several VPSs what leaves goes now. Clients may reach all of them; a silent one does not stand by. */
function turn(relay) {
	if (relay.active)
		return _('used now for outgoing traffic');

	return (relay.active == null || relay.other_end == 'silent') ? '' : _('stands by for outgoing traffic');
}

/* The addresses of a router; with WireGuard its own outer one does not matter. */
function routerLines(relay) {
	return (relay.transport == 'wireguard') ? [] : [ relay.local || _('no address yet') ];
}

function tunnelLines(relay) {
	return [
		relay.device + (relay.tunlink ? ' – ' + relay.tunlink : ''),
		[
			relay.mtu ? words.fill(_('MTU %d'), [ relay.mtu ]) : '',
			(relay.heard_s != null) ? words.fill(_('last heard %s'), [ model.ago(relay.heard_s) ]) : ''
		].filter((word) => word).join(' · ')
	].filter((word) => word);
}

return baseclass.extend({
	S,

	/* `names` gives hosts' names by address, `rates` bytes per second; `tall` is for narrow screens. */
	render(relay, names, rates, tall, served) {
		const state = model.parts(relay, served),
		      busy = rates != null && rates.rx + rates.tx > 0;

		return S('svg', {
			'class': 'ds4-path', 'role': 'img', 'aria-label': sentence(relay, state, names),
			viewBox: tall
				? '0 0 320 440'
				: '0 0 910 ' + (150 + 15 * Math.max(2, Math.min(4, model.hosts(relay).length)))
		}, tall ? this.tall(relay, names, rates, state, busy) : this.wide(relay, names, rates, state, busy));
	},

	wide(relay, names, rates, state, busy) {
		const y = 72,
		      [ client, vps, router, host ] = [ 70, 262, 632, 822 ],
		      middle = (vps + router) / 2;

		return [
			line([ client + 34, y ], [ vps - 34, y ], state.client, busy),
			text((client + vps) / 2, y - 10, 'ds4-note', 'middle', 'IPv4'),
			pipe([ vps + 34, y ], [ router - 34, y ], state.tunnel, busy),
			text(middle, y - 42, 'ds4-name', 'middle', tunnelName(relay)),
			text(middle, y - 22, 'ds4-note', 'middle', traffic(relay, rates).join('\u2003')),
			S('g', {
				transform: 'translate(' + middle + ' ' + y + ')', 'class': 'ds4-node ds4-' + state.tunnel
			}, [ mark(state.tunnel, 0, 0) ]),
			...tunnelLines(relay).map((words_, i) => text(middle, y + 28 + 15 * i, 'ds4-address', 'middle', words_)),
			line([ router + 34, y ], [ host - 34, y ], state.host, busy),
			text((router + host) / 2, y - 10, 'ds4-note', 'middle', 'IPv4'),
			icon('client', client, y, state.client),
			...lines(client, y + 46, 'middle', _('Client'), [ _('anywhere') ]),
			icon('vps', vps, y, state.vps),
			...lines(vps, y + 46, 'middle', _('VPS'), vpsLines(relay)),
			icon('router', router, y, state.router),
			...lines(router, y + 46, 'middle', _('This router'), routerLines(relay)),
			icon('host', host, y, state.host),
			...lines(host, y + 46, 'middle', _('Host', 'server at home'), hostLines(relay, names, 4))
		];
	},

	tall(relay, names, rates, state, busy) {
		const x = 44,
		      [ client, vps, router, host ] = [ 40, 130, 295, 385 ],
		      beside = (name, y, addresses) =>
			lines(x + 46, y - 10 + ((addresses.length < 2) ? 8 : 0), 'start', name, addresses);

		return [
			line([ x, client + 32 ], [ x, vps - 32 ], state.client, busy),
			pipe([ x, vps + 32 ], [ x, router - 32 ], state.tunnel, busy),
			S('g', {
				transform: 'translate(' + x + ' ' + (vps + router) / 2 + ')', 'class': 'ds4-node ds4-' + state.tunnel
			}, [ mark(state.tunnel, 0, 0) ]),
			line([ x, router + 32 ], [ x, host - 32 ], state.host, busy),
			...lines(x + 46, (vps + router) / 2 - 24, 'start', tunnelName(relay),
				tunnelLines(relay).concat(traffic(relay, rates))),
			icon('client', x, client, state.client),
			...beside(_('Client'), client, [ _('anywhere') ]),
			icon('vps', x, vps, state.vps),
			...beside(_('VPS'), vps, vpsLines(relay)),
			icon('router', x, router, state.router),
			...beside(_('This router'), router, routerLines(relay)),
			icon('host', x, host, state.host),
			...beside(_('Host', 'server at home'), host, hostLines(relay, names, 3))
		];
	}
});
